//! Lists: ordered, paged, and in Clerk's two forms.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::query::{Order, Page};
use crate::emulator::directory::Row;

/// What a row is ordered by. Numbers before texts is of no meaning: one order uses one of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Number(i64),
    Text(String),
}

impl Key {
    /// Rows without come first.
    pub(super) fn number(number: Option<i64>) -> Self {
        Self::Number(number.unwrap_or(i64::MIN))
    }

    /// Rows without come first.
    pub(super) fn text(text: Option<&str>) -> Self {
        Self::Text(text.unwrap_or_default().to_lowercase())
    }
}

/// Sorts by a key, and rows with the same in the order in which they were made.
pub(super) fn sort<R: Row>(rows: &mut Vec<&R>, order: Order, key: impl Fn(&R) -> Key) {
    let keyed = rows.drain(..).map(|row| (key(row), row));
    let mut keyed: Vec<(Key, &R)> = keyed.collect();
    keyed.sort_by(|(a_key, a), (b_key, b)| {
        let ascending = a_key
            .cmp(b_key)
            .then_with(|| a.stamp().sequence.cmp(&b.stamp().sequence));
        if order.descending {
            Ordering::reverse(ascending)
        } else {
            ascending
        }
    });
    rows.extend(keyed.into_iter().map(|(_, row)| row));
}

/// `{data, total_count}` of a page of `rows`.
pub(super) fn paged<R>(rows: Vec<&R>, page: Page, object: impl Fn(&R) -> Value) -> Value {
    let total = rows.len();
    let data: Vec<Value> = page.of(rows).into_iter().map(object).collect();
    json!({ "data": data, "total_count": total })
}
