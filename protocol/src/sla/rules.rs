//! The table: every field of the document, what may stand in it, and whether it must.
//!
//! Everything that is checked of a single field stands here; `walk` only follows it.

/// Applications in one document.
pub const APPLICATIONS_MAX: usize = 64;

/// Services in one application.
pub const SERVICES_MAX: usize = 256;

/// Bytes of one service as compact JSON: with names and lengths its workload then takes less
/// than the 96 KiB of which two fit one message.
pub const SERVICE_BYTES_MAX: usize = 95 * 1024;

/// Entries of `cmd`, `environment` and other lists: what execve takes without surprise.
const LIST_MAX: usize = 512;

/// Bytes of an ordinary text.
const TEXT_BYTES_MAX: usize = 4096;

/// Bytes of one argument or variable: below the kernel's limit of 128 KiB for one string.
const ARGUMENT_BYTES_MAX: usize = 64 * 1024;

/// MiB of memory or disk: 2 PiB, far above any board and far below an overflow.
const MIB_MAX: i64 = 2_147_483_647;

/// Instances of one service: as many as a cluster takes.
const REPLICAS_MAX: i64 = crate::CLUSTER_INSTANCES_MAX as i64;

/// Priorities from minus this to this: room for any scheme that people can keep in mind.
const PRIORITY_MAX: i64 = 1_000;

/// Bytes of a name that nodes tell in their summaries.
const WORD_BYTES_MAX: usize = 64;

/// Names or services that one service asks for beside itself: each is looked for on every
/// candidate.
const WORDS_MAX: usize = 32;

/// Values of `virtualization`; beside them stand `kata-…` and `io.containerd.…` for
/// runtimes that an operator has named in containerd's configuration.
pub(super) const VIRTUALIZATIONS: &[&str] = &[
    "container",
    "docker",
    "native",
    "runc",
    "crun",
    "kata",
    "runsc",
    "unikernel",
    "vm",
    "crosvm",
    "wasm",
];

/// What may stand in a field.
#[derive(Debug)]
pub(super) enum Rule {
    /// Text up to so many bytes, without NUL.
    Text(usize),
    /// The same, and not empty.
    Filled(usize),
    /// Nothing: ids are given by the root.
    Empty,
    /// Nothing, or an id.
    OptionalId,
    /// 1 to 30 letters or digits.
    Name,
    /// A whole number between two bounds.
    Integer(i64, i64),
    /// A number between two bounds.
    Number(f64, f64),
    /// Cores up to so many, and parts of one.
    Cores(u32),
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One of [`VIRTUALIZATIONS`], or a runtime's name.
    Virtualization,
    /// A port string.
    Ports,
    /// An IPv4 address in 10.30.0.0/16.
    ServiceIpv4,
    /// An IPv6 address in fdff:2000::/21.
    ServiceIpv6,
    /// `NAME=value`.
    Variable,
    /// An absolute path without `..`.
    AbsolutePath,
    /// A selector.
    Selector,
    /// Selectors joined by `;`, or nothing.
    Selectors,
    /// An expression over labels.
    Labels,
    /// A label's key.
    LabelKey,
    /// A place on the globe, or nothing.
    Place,
    /// Another service.
    Reference,
    /// A list of at most so many.
    List(&'static Rule, usize),
    /// An object with these fields, and others that are kept.
    Object(&'static [Field]),
    /// An object of texts.
    TextMap,
}

/// A field of an object.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) rule: Rule,
}

const fn must(name: &'static str, rule: Rule) -> Field {
    Field { name, required: true, rule }
}

const fn may(name: &'static str, rule: Rule) -> Field {
    Field { name, required: false, rule }
}

const TEXTS: Rule = Rule::List(&Rule::Text(TEXT_BYTES_MAX), LIST_MAX);
const TEXT: Rule = Rule::Text(TEXT_BYTES_MAX);
const RIGIDNESS: Rule = Rule::Number(0.0, 1.0);
const THRESHOLD: Rule = Rule::Number(0.0, 1e12);
const SECONDS: Rule = Rule::Integer(0, 86_400 * 365);
const MIB: Rule = Rule::Integer(0, MIB_MAX);

const ADDONS: Rule = Rule::List(&Rule::Filled(WORD_BYTES_MAX), WORDS_MAX);
const REFERENCES: Rule = Rule::List(&Rule::Reference, WORDS_MAX);
const PATIENCE_S: Rule = Rule::Integer(1, 86_400 * 365);

pub(super) const DOCUMENT: Rule = Rule::Object(&[
    must("sla_version", Rule::OneOf(&[super::SLA_VERSION])),
    must("customerID", TEXT),
    may("args", TEXTS),
    must("applications", Rule::List(&APPLICATION, APPLICATIONS_MAX)),
]);

const APPLICATION: Rule = Rule::Object(&[
    may("applicationID", Rule::OptionalId),
    must("application_name", Rule::Name),
    must("application_namespace", Rule::Name),
    may("application_desc", TEXT),
    may("microservices", Rule::List(&MICROSERVICE, SERVICES_MAX)),
]);

const MICROSERVICE: Rule = Rule::Object(&[
    may("microserviceID", Rule::Empty),
    must("microservice_name", Rule::Name),
    must("microservice_namespace", Rule::Name),
    must("virtualization", Rule::Virtualization),
    must("code", Rule::Filled(TEXT_BYTES_MAX)),
    may("memory", MIB),
    may("vcpus", Rule::Cores(4096)),
    may("vgpus", Rule::Integer(0, 1024)),
    may("vtpus", Rule::Integer(0, 1024)),
    may("bandwidth_in", Rule::Integer(0, MIB_MAX)),
    may("bandwidth_out", Rule::Integer(0, MIB_MAX)),
    may("storage", MIB),
    may("state", TEXT),
    may("port", Rule::Ports),
    may("one_shot", Rule::Flag),
    may("privileged", Rule::Flag),
    may("cmd", Rule::List(&Rule::Text(ARGUMENT_BYTES_MAX), LIST_MAX)),
    may("environment", Rule::List(&Rule::Variable, LIST_MAX)),
    may("args", TEXTS),
    may("added_files", TEXTS),
    may("sla_violation_strategy", TEXT),
    may("target_node", TEXT),
    may("addresses", ADDRESSES),
    may("volumes", Rule::List(&VOLUME, LIST_MAX)),
    may("constraints", Rule::List(&CONSTRAINT, LIST_MAX)),
    may("connectivity", Rule::List(&CONNECTIVITY, LIST_MAX)),
    may("arch", Rule::List(&Rule::OneOf(&["amd64", "arm64", "arm", "riscv64"]), 8)),
    may("vm_images", TEXTS),
    may("platform", TEXT),
    may("marram", MARRAM),
]);

const ADDRESSES: Rule = Rule::Object(&[
    may("rr_ip", Rule::ServiceIpv4),
    may("rr_ip_v6", Rule::ServiceIpv6),
    may("closest_ip", Rule::ServiceIpv4),
    may("closest_ip_v6", Rule::ServiceIpv6),
    may("instances", Rule::List(&INSTANCE_ADDRESS, LIST_MAX)),
]);

const INSTANCE_ADDRESS: Rule =
    Rule::Object(&[may("from", TEXT), may("to", TEXT), may("start", TEXT)]);

const VOLUME: Rule = Rule::Object(&[
    must("volume_id", Rule::Filled(TEXT_BYTES_MAX)),
    must("csi_driver", Rule::Filled(TEXT_BYTES_MAX)),
    may("mount_path", TEXT),
    may("config", Rule::TextMap),
]);

const CONSTRAINT: Rule = Rule::Object(&[
    must("type", Rule::OneOf(&["direct", "clusters", "addons", "latency", "geo"])),
    may("area", TEXT),
    may("cluster", Rule::Selectors),
    may("node", Rule::Selectors),
    may("location", Rule::Place),
    may("threshold", THRESHOLD),
    may("rigidness", RIGIDNESS),
    may("convergence_time", SECONDS),
    may("needs", ADDONS),
    may("allowed", Rule::List(&Rule::Selector, LIST_MAX)),
]);

const CONNECTIVITY: Rule = Rule::Object(&[
    must("target_microservice_id", Rule::Reference),
    must("con_constraints", Rule::List(&CONNECTIVITY_CONSTRAINT, LIST_MAX)),
]);

const CONNECTIVITY_CONSTRAINT: Rule = Rule::Object(&[
    must("type", TEXT),
    must("threshold", THRESHOLD),
    must("rigidness", RIGIDNESS),
    must("convergence_time", SECONDS),
]);

const MARRAM: Rule = Rule::Object(&[
    may("runtime", Rule::Filled(256)),
    may("cpu_millicores", Rule::Integer(1, 4_096_000)),
    may("pids_max", Rule::Integer(1, 4_194_304)),
    may("restart", Rule::OneOf(&["always", "on_failure", "never"])),
    may("stop_grace_s", Rule::Integer(0, 3600)),
    may("user", Rule::Filled(256)),
    may("working_dir", Rule::AbsolutePath),
    may("mounts", Rule::List(&MOUNT, 64)),
    may("devices", Rule::List(&Rule::AbsolutePath, 64)),
    may("read_only_root", Rule::Flag),
    may("private_namespaces", Rule::Flag),
    may("allow_unlimited", Rule::Flag),
    may("log_kib_max", Rule::Integer(16, 1_048_576)),
    may("gpu_memory_mib", MIB),
    may("replicas", Rule::Integer(1, REPLICAS_MAX)),
    may("on_loss", Rule::OneOf(&[REPLACE, WAIT])),
    may("patience", PATIENCE),
    may("move", Rule::OneOf(&["start_first", "stop_first", "never"])),
    may("placement", PLACEMENT),
]);

/// Words of `on_loss`.
pub(super) const REPLACE: &str = "replace";
pub(super) const WAIT: &str = "wait";

const PATIENCE: Rule = Rule::Object(&[
    may("node_s", PATIENCE_S),
    may("cluster_s", PATIENCE_S),
    may("parent_s", PATIENCE_S),
]);

const PLACEMENT: Rule = Rule::Object(&[
    may("labels", Rule::Labels),
    may("spread", Rule::LabelKey),
    may("with", REFERENCES),
    may("apart_from", REFERENCES),
    may("policy", Rule::OneOf(&["best-fit", "spread", "ldp"])),
    may("priority", Rule::Integer(-PRIORITY_MAX, PRIORITY_MAX)),
    may("addons", ADDONS),
]);

const MOUNT: Rule = Rule::Object(&[
    must("source", Rule::AbsolutePath),
    must("target", Rule::AbsolutePath),
    may("read_only", Rule::Flag),
]);
