//! The root as the calls that it shares with clusters see it: with users, who see their own.

use super::{Rest, bearer};
use crate::auth::Access;
use crate::clock::unix_s;
use crate::refusal::Refusal;
use crate::shell::View;
use axum::http::HeaderMap;
use marram_orchestrator_core::{Now, Tier};
use marram_protocol::id::{ApplicationId, ChildId, InstanceId};
use marram_protocol::v1::{Missed, OperationEnd};
use marram_rest::front::{Front, Gate, Order, Sight};
use marram_rest::link::Link;
use marram_rest::problem::Problem;
use std::sync::Arc;

impl Front for Rest {
    type Caller = Access;

    const ROLE: &'static str = "root";

    fn caller(&self, headers: &HeaderMap) -> Result<Access, Problem> {
        let access = self.auth.access(bearer(headers), unix_s());
        access.map_err(|error| Problem::unauthenticated(&error.to_string()))
    }

    fn require_operator(&self, caller: &Access) -> Result<(), Refusal> {
        caller.require_admin()
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Sight<Access>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.handle.read(move |view| look(view)).await
    }

    async fn operate(&self, order: Order) -> Result<OperationEnd, Refusal> {
        self.handle.operate(order).await
    }

    async fn adopt(&self, child: ChildId) -> Result<(), Refusal> {
        self.handle.adopt(child).await
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Sight<Access> for View<'_> {
    fn tier(&self) -> &Tier {
        self.tier
    }

    fn now(&self) -> Now {
        self.now
    }

    fn permit(&self, caller: &Access, id: InstanceId) -> Result<Option<ApplicationId>, Refusal> {
        Ok(Some(self.catalog.service_of(caller, id)?.application))
    }

    fn link(&self, child: ChildId) -> Option<Arc<Link>> {
        self.way(child)
    }

    fn missed(&self, id: InstanceId) -> Vec<Missed> {
        View::missed(self, id)
    }
}
