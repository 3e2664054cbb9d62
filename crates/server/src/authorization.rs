//! What a Client may do: the one place where an identity becomes permissions.
//!
//! Owns: [`authorize`]. Does not own: who a Client is (see `authentication`), how permissions are kept and
//! asked (see `engine`). Start reading at [`authorize`]. Invariant: nobody has permissions but from here.

use std::sync::{Arc, LazyLock};

use engine::Permissions;

use crate::authentication::{Attempt, Identity};

/// What a Client with this identity may do: everything, as long as no rules can be configured.
pub(crate) fn authorize(_: &Identity, _: &Attempt<'_>) -> Arc<Permissions> {
    static EVERYTHING: LazyLock<Arc<Permissions>> =
        LazyLock::new(|| Arc::new(Permissions::allow_all()));
    Arc::clone(&EVERYTHING)
}
