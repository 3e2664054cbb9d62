//! The Topic Filters of one Session.
//!
//! Owns: [`Filters`]. Does not own: what is subscribed to under them (see `subscriptions`). Start reading at [`Filters`].
//! Invariants: ascending, each once; a Session with one Subscription holds no room for ten more.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// A set in the order of the names.
#[derive(Debug)]
pub(crate) enum Filters {
    /// Most Sessions: ascending, at most [`FEW_MAX`].
    Few(Vec<Arc<str>>),
    Many(BTreeSet<Arc<str>>),
}

impl Default for Filters {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Filters {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// O(log n).
    pub(crate) fn contains(&self, filter: &str) -> bool {
        match self {
            Self::Few(few) => place(few, filter).is_ok(),
            Self::Many(many) => many.contains(filter),
        }
    }

    /// O(log n). What is there already stays.
    pub(crate) fn insert(&mut self, filter: Arc<str>) {
        match self {
            Self::Few(few) => {
                let Err(at) = place(few, &filter) else {
                    return;
                };
                if few.len() < FEW_MAX {
                    few.reserve_exact(1);
                    few.insert(at, filter);
                } else {
                    let mut many: BTreeSet<_> = std::mem::take(few).into_iter().collect();
                    many.insert(filter);
                    *self = Self::Many(many);
                }
            }
            Self::Many(many) => {
                many.insert(filter);
            }
        }
    }

    /// Whether it was there. O(log n).
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        match self {
            Self::Few(few) => {
                let found = place(few, filter);
                if let Ok(at) = found {
                    few.remove(at);
                    few.shrink_to_fit();
                }
                found.is_ok()
            }
            Self::Many(many) => {
                let was_there = many.remove(filter);
                // Not at the same number at which they became many, or one that comes and goes would move all.
                if many.len() <= FEW_MAX / 2 {
                    *self = Self::Few(std::mem::take(many).into_iter().collect());
                }
                was_there
            }
        }
    }

    /// In the order of the names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.from("")
    }

    /// The same, from the first that is not below `start`.
    pub(crate) fn from(&self, start: &str) -> impl Iterator<Item = &Arc<str>> {
        let (few, many) = match self {
            Self::Few(few) => {
                let at = few.partition_point(|filter| &**filter < start);
                (few.get(at..).unwrap_or_default(), None)
            }
            Self::Many(many) => {
                let from = (Bound::Included(start), Bound::Unbounded);
                (&[][..], Some(many.range::<str, _>(from)))
            }
        };
        few.iter().chain(many.into_iter().flatten())
    }

    /// Bytes that it holds beside itself and the names.
    pub(crate) fn table_bytes(&self) -> usize {
        match self {
            Self::Few(few) => few.capacity() * size_of::<Arc<str>>(),
            Self::Many(many) => many.len() * MANY_BYTES,
        }
    }
}

fn place(few: &[Arc<str>], filter: &str) -> Result<usize, usize> {
    few.binary_search_by(|found| (**found).cmp(filter))
}

/// With more they are kept in a tree.
const FEW_MAX: usize = 8;
/// One in a tree whose nodes are two thirds full.
const MANY_BYTES: usize = 28;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few or many, they are what a set in order is.
        #[test]
        fn filters_are_a_set_in_order(
            changes in prop::collection::vec((0_u8..24, any::<bool>()), 0..200),
            start in 0_u8..24,
        ) {
            let (mut filters, mut model) = (Filters::default(), BTreeSet::<Arc<str>>::new());
            let name = |number: u8| -> Arc<str> { format!("site/{number}").into() };
            for (number, is_put) in changes {
                let name = name(number);
                prop_assert_eq!(filters.contains(&name), model.contains(&name));
                if is_put {
                    model.insert(Arc::clone(&name));
                    filters.insert(name);
                } else {
                    prop_assert_eq!(filters.remove(&name), model.remove(&name));
                }
                prop_assert_eq!(filters.len(), model.len());
                prop_assert!(filters.iter().eq(model.iter()));
            }
            let start = name(start);
            prop_assert!(filters.from(&start).eq(model.range(start.clone()..)));
        }
    }

    #[test]
    fn one_filter_takes_one_place() {
        let mut filters = Filters::default();
        filters.insert("a".into());
        assert_eq!(filters.table_bytes(), size_of::<Arc<str>>());
        filters.remove("a");
        assert_eq!(filters.table_bytes(), 0);
    }
}
