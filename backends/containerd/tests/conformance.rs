//! The backends' conformance suite on real containers, with both common runtimes. Needs root.

mod support;

mod runc {
    marram_backend_api::conformance_tests!(crate::support::Host::new("runc"));
}

mod crun {
    marram_backend_api::conformance_tests!(crate::support::Host::new("crun"));
}
