//! The backends' conformance suite on programs of this host. Needs root, as the backend does.

mod common;

use common::Place;
use marram_backend_api::conformance::{Harness, Program};
use marram_backend_api::{Backend, BoxFuture, Spec, WorkloadId};
use marram_native::NativeBackend;
use std::sync::Arc;

/// Programs as they run by default.
struct Plain(Place);

impl Harness for Plain {
    fn backend(&self) -> BoxFuture<'_, Arc<dyn Backend>> {
        Box::pin(async {
            let backend: Arc<dyn Backend> = Arc::new(NativeBackend::new(self.0.config.clone()));
            backend
        })
    }

    fn spec(&self, program: Program) -> Spec {
        common::spec(program)
    }

    fn enforces(&self, _limit: &str) -> bool {
        // Each host that these tests are meant for has the controllers, on version 1 or 2.
        true
    }

    fn remains<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async { self.0.remains(id.as_str()) })
    }
}

mod plain {
    use super::*;
    marram_backend_api::conformance_tests!(Plain(Place::new()));
}

/// The same with mount and process-id namespaces of their own.
struct Private(Plain);

impl Harness for Private {
    fn backend(&self) -> BoxFuture<'_, Arc<dyn Backend>> {
        self.0.backend()
    }

    fn spec(&self, program: Program) -> Spec {
        Spec { private_namespaces: true, ..common::spec(program) }
    }

    fn enforces(&self, limit: &str) -> bool {
        self.0.enforces(limit)
    }

    fn remains<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Vec<String>> {
        self.0.remains(id)
    }
}

mod private {
    use super::*;
    marram_backend_api::conformance_tests!(Private(Plain(Place::new())));
}
