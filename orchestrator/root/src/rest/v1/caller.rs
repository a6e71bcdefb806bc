//! Who calls a path of the clean form.

use super::super::{Rest, bearer};
use crate::auth::Access;
use crate::clock::unix_s;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use marram_rest::problem::Problem;

/// Who calls.
#[derive(Debug)]
pub(super) struct Caller(pub(super) Access);

impl FromRequestParts<Rest> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Problem> {
        let access = rest.auth.access(bearer(&parts.headers), unix_s());
        Ok(Self(access.map_err(|error| Problem::unauthenticated(&error.to_string()))?))
    }
}
