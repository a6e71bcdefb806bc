//! The shell with a store and children of the tests.
