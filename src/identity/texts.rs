use std::fmt;

/// How the length of a text stands before it.
type Length = u32;
const LENGTH_BYTES: usize = size_of::<Length>();

/// A list of texts in one allocation whatever its length, for lists that live in caches.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// Each text behind its length.
    packed: Box<[u8]>,
}

impl Texts {
    /// The texts in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.bytes()
            .map(|text| std::str::from_utf8(text).expect("a text was put in"))
    }

    fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.packed;
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk::<LENGTH_BYTES>()?;
            let (text, behind) = behind.split_at(Length::from_le_bytes(*length) as usize);
            rest = behind;
            Some(text)
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Whether one of them is exactly `text`.
    pub fn contains(&self, text: &str) -> bool {
        self.bytes().any(|each| each == text.as_bytes())
    }

    /// What they hold on the heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.packed.len()
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut builder = TextsBuilder::default();
        for text in texts {
            builder.push(&[text.as_ref()]);
        }
        builder.finish()
    }
}

/// Collects [`Texts`].
#[derive(Debug, Default)]
pub(crate) struct TextsBuilder {
    packed: Vec<u8>,
}

impl TextsBuilder {
    /// Adds one text, given in parts. One of more than 4 GiB is left out.
    pub(crate) fn push(&mut self, parts: &[&str]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let Ok(length) = Length::try_from(length) else {
            return;
        };
        self.packed.extend_from_slice(&length.to_le_bytes());
        for part in parts {
            self.packed.extend_from_slice(part.as_bytes());
        }
    }

    pub(crate) fn finish(self) -> Texts {
        Texts {
            packed: self.packed.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_are_what_was_put_in(texts: Vec<String>) {
            let packed: Texts = texts.iter().collect();

            prop_assert_eq!(packed.len(), texts.len());
            prop_assert_eq!(packed.is_empty(), texts.is_empty());
            prop_assert!(packed.iter().eq(texts.iter().map(String::as_str)));
            prop_assert!(texts.iter().all(|text| packed.contains(text)));
            prop_assert_eq!(packed.contains("no such"), texts.iter().any(|text| text == "no such"));
        }
    }
}
