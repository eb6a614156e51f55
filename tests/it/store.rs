//! The store: one suite, each behaviour on both engines.

mod coordination;
mod entities;
mod feed;
mod inbox;
mod ordering;
mod schema;
