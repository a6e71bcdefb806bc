//! Documents that are wrong, each with every word of what is said about it.
//!
//! A row changes one place of a good document; what is expected is the whole error text.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod placement;

use marram_protocol::sla::{self, ERRORS_MAX, SLA_BYTES_MAX, SlaErrors};
use serde_json::{Value, json};

const GOOD: &str = include_str!("../full.json");
const APP: &str = "/applications/0";
const SVC: &str = "/applications/0/microservices/0";

fn good() -> Value {
    serde_json::from_str(GOOD).unwrap()
}

/// Puts a value at a JSON pointer, or takes away what stands there.
fn put(document: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match (document.pointer_mut(parent).unwrap(), value) {
        (Value::Object(object), Some(value)) => drop(object.insert(key.to_owned(), value)),
        (Value::Object(object), None) => drop(object.remove(key).unwrap()),
        (Value::Array(items), Some(value)) => items.insert(key.parse().unwrap(), value),
        (other, _) => panic!("{pointer} is inside {other}"),
    }
}

fn error_of(document: &Value) -> String {
    sla::parse(document.to_string().as_bytes()).unwrap_err().to_string()
}

/// Checks rows of `(field below base, JSON or "-" for nothing, expected after the path)`.
fn check(base: &str, path: &str, rows: &[(&str, &str, &str)]) {
    for (field, value, expected) in rows {
        let value = (*value != "-").then(|| serde_json::from_str(value).unwrap());
        let mut document = good();
        put(&mut document, &format!("{base}/{field}"), value);
        let segment = |part: &str| match part.parse::<usize>() {
            Ok(index) => format!("[{index}]"),
            Err(_) => format!(".{part}"),
        };
        let place: String = field.split('/').map(segment).collect();
        assert_eq!(error_of(&document), format!("{path}{place}: {expected}"), "{field}");
    }
}

#[test]
fn the_document_itself() {
    check(
        "",
        "$",
        &[
            ("sla_version", "-", "nothing, expected a value"),
            ("sla_version", "\"v1.0\"", "\"v1.0\", expected one of v2.0"),
            ("sla_version", "2.0", "2.0, expected a text"),
            ("customerID", "-", "nothing, expected a value"),
            ("customerID", "null", "null, expected a text"),
            ("customerID", "17", "17, expected a text"),
            ("args", "\"a\"", "\"a\", expected a list of at most 512"),
            ("args/0", "{}", "an object of 0 properties, expected a text"),
            ("applications", "-", "nothing, expected a value"),
            ("applications", "{}", "an object of 0 properties, expected a list of at most 64"),
            ("applications", "[]", "a list of 0, expected at least one application"),
            ("applications/1", "7", "7, expected an object"),
        ],
    );
}

#[test]
fn applications() {
    let name = "expected 1 to 30 letters or digits";
    check(
        APP,
        "$.applications[0]",
        &[
            ("application_name", "-", "nothing, expected a value"),
            ("application_name", "\"\"", &format!("\"\", {name}")),
            ("application_name", "\"a-b\"", &format!("\"a-b\", {name}")),
            ("application_name", "\"a b\"", &format!("\"a b\", {name}")),
            ("application_name", "\"straße\"", &format!("\"straße\", {name}")),
            (
                "application_name",
                "\"abcdefghijklmnopqrstuvwxyzabcde\"",
                &format!("\"abcdefghijklmnopqrstuvwxyzabcde\", {name}"),
            ),
            ("application_namespace", "[\"t\"]", "a list of 1, expected a text"),
            ("application_namespace", "\"a\\u0000\"", &format!("\"a\\0\", {name}")),
            ("application_desc", "false", "false, expected a text"),
            (
                "applicationID",
                "\"17\"",
                "\"17\", expected an empty text or an id of 24 hexadecimal digits",
            ),
            ("microservices", "null", "null, expected a list of at most 256"),
            ("microservices/0", "\"nginx\"", "\"nginx\", expected an object"),
        ],
    );
    let mut document = good();
    let application = document["applications"][0].clone();
    put(&mut document, "/applications/1", Some(application));
    assert_eq!(
        error_of(&document),
        "$.applications[1].application_name: \"clientsrvr\" in namespace \"test\" a second time, \
         expected a name used once"
    );
    let mut document = good();
    put(&mut document, "/applications", Some(vec![json!({}); 65].into()));
    assert_eq!(error_of(&document), "$.applications: a list of 65, expected a list of at most 64");
}

#[test]
fn what_a_service_must_have() {
    let kinds = "expected one of container, docker, native, runc, crun, kata, runsc, unikernel, \
                 vm, crosvm, wasm, or a runtime as kata-… or io.containerd.…";
    check(
        SVC,
        "$.applications[0].microservices[0]",
        &[
            (
                "microserviceID",
                "\"6b02c146095d85ec50ef2ebc\"",
                "\"6b02c146095d85ec50ef2ebc\", expected an empty text, ids are given by the root",
            ),
            ("microservice_name", "-", "nothing, expected a value"),
            ("microservice_name", "\"n/g\"", "\"n/g\", expected 1 to 30 letters or digits"),
            ("microservice_namespace", "-", "nothing, expected a value"),
            ("virtualization", "-", "nothing, expected a value"),
            ("virtualization", "\"podman\"", &format!("\"podman\", {kinds}")),
            ("virtualization", "\"Container\"", &format!("\"Container\", {kinds}")),
            ("virtualization", "\"kata-\"", &format!("\"kata-\", {kinds}")),
            ("virtualization", "\"kata-a b\"", &format!("\"kata-a b\", {kinds}")),
            ("code", "-", "nothing, expected a value"),
            ("code", "\" \"", "\" \", expected a text of 1 to 4096 bytes without NUL"),
            ("code", "\"a\\u0000b\"", "\"a\\0b\", expected a text of 1 to 4096 bytes without NUL"),
        ],
    );
    let mut document = good();
    let mut service = document["applications"][0]["microservices"][0].clone();
    put(&mut document, &format!("{SVC}/code"), Some("x".repeat(5000).into()));
    assert_eq!(
        error_of(&document),
        format!(
            "$.applications[0].microservices[0].code: \"{}\"… (5000 bytes), \
             expected a text of 1 to 4096 bytes without NUL",
            "x".repeat(60)
        )
    );
    document = good();
    service["virtualization"] = "native".into();
    put(&mut document, &format!("{APP}/microservices/1"), Some(service));
    assert_eq!(
        error_of(&document),
        "$.applications[0].microservices[1].microservice_name: \"nginx\" in namespace \"test\" a \
         second time, expected a name used once"
    );
}

#[test]
fn amounts_and_flags() {
    let mib = "expected a whole number from 0 to 2147483647";
    check(
        SVC,
        "$.applications[0].microservices[0]",
        &[
            ("memory", "-1", &format!("-1, {mib}")),
            ("memory", "1.5", &format!("1.5, {mib}")),
            ("memory", "100.0", &format!("100.0, {mib}")),
            ("memory", "1e3", &format!("1000.0, {mib}")),
            ("memory", "\"100\"", &format!("\"100\", {mib}")),
            ("memory", "2147483648", &format!("2147483648, {mib}")),
            ("memory", "18446744073709551615", &format!("18446744073709551615, {mib}")),
            ("memory", "null", &format!("null, {mib}")),
            ("memory", "true", &format!("true, {mib}")),
            ("storage", "[]", &format!("a list of 0, {mib}")),
            ("bandwidth_in", "-2", &format!("-2, {mib}")),
            ("bandwidth_out", "\"\"", &format!("\"\", {mib}")),
            ("vcpus", "0.0005", "0.0005, expected a number from 0 to 4096 in steps of 0.001"),
            ("vcpus", "-1", "-1, expected a number from 0 to 4096 in steps of 0.001"),
            ("vcpus", "4097", "4097, expected a number from 0 to 4096 in steps of 0.001"),
            ("vcpus", "\"1\"", "\"1\", expected a number from 0 to 4096 in steps of 0.001"),
            ("vgpus", "1025", "1025, expected a whole number from 0 to 1024"),
            ("vtpus", "{}", "an object of 0 properties, expected a whole number from 0 to 1024"),
            ("one_shot", "1", "1, expected true or false"),
            ("one_shot", "\"true\"", "\"true\", expected true or false"),
            ("privileged", "null", "null, expected true or false"),
        ],
    );
}

#[test]
fn ports() {
    let form = "is no port mapping, write HOST[:CONTAINER][/tcp|/udp] joined by ';'";
    check(
        SVC,
        "$.applications[0].microservices[0]",
        &[
            ("port", "9080", "9080, expected a text"),
            ("port", "\"http\"", &format!("\"http\", expected a port string: \"http\" {form}")),
            ("port", "\"80:\"", &format!("\"80:\", expected a port string: \"80:\" {form}")),
            ("port", "\"80;\"", &format!("\"80;\", expected a port string: \"\" {form}")),
            (
                "port",
                "\"80/sctp\"",
                &format!("\"80/sctp\", expected a port string: \"80/sctp\" {form}"),
            ),
            (
                "port",
                "\"80:65536\"",
                "\"80:65536\", expected a port string: \"65536\" is no port, a port is 1 to 65535",
            ),
            (
                "port",
                "\"0\"",
                "\"0\", expected a port string: \"0\" is no port, a port is 1 to 65535",
            ),
            (
                "port",
                "\"80:1;80:2\"",
                "\"80:1;80:2\", expected a port string: host port 80 is mapped twice",
            ),
        ],
    );
}

#[test]
fn lists_of_texts() {
    let variable = "expected NAME=value, at most 65536 bytes";
    check(
        SVC,
        "$.applications[0].microservices[0]",
        &[
            ("cmd", "\"sh -c true\"", "\"sh -c true\", expected a list of at most 512"),
            ("cmd/1", "3", "3, expected a text"),
            (
                "cmd/0",
                "\"a\\u0000\"",
                "\"a\\0\", expected a text of at most 65536 bytes without NUL",
            ),
            (
                "environment",
                "{\"A\":\"b\"}",
                "an object of 1 properties, expected a list of at most 512",
            ),
            ("environment/0", "\"A\"", &format!("\"A\", {variable}")),
            ("environment/0", "\"=b\"", &format!("\"=b\", {variable}")),
            ("added_files", "null", "null, expected a list of at most 512"),
            ("arch/0", "\"x86\"", "\"x86\", expected one of amd64, arm64, arm, riscv64"),
            ("vm_images/0", "null", "null, expected a text"),
        ],
    );
    let mut document = good();
    put(&mut document, &format!("{SVC}/cmd"), Some(vec![json!("a"); 513].into()));
    assert_eq!(
        error_of(&document),
        "$.applications[0].microservices[0].cmd: a list of 513, expected a list of at most 512"
    );
}

#[test]
fn addresses_volumes_and_constraints() {
    let kinds = "expected one of direct, clusters, addons, latency, geo";
    check(
        SVC,
        "$.applications[0].microservices[0]",
        &[
            ("addresses", "[]", "a list of 0, expected an object"),
            (
                "addresses/rr_ip",
                "\"10.31.0.1\"",
                "\"10.31.0.1\", expected an IPv4 address in 10.30.0.0/16",
            ),
            (
                "addresses/rr_ip",
                "\"10.30.0.256\"",
                "\"10.30.0.256\", expected an IPv4 address in 10.30.0.0/16",
            ),
            (
                "addresses/rr_ip_v6",
                "\"fdff:3000::1\"",
                "\"fdff:3000::1\", expected an IPv6 address in fdff:2000::/21",
            ),
            ("addresses/closest_ip", "\"\"", "\"\", expected an IPv4 address in 10.30.0.0/16"),
            ("addresses/instances/0/from", "0", "0, expected a text"),
            ("volumes/0/csi_driver", "-", "nothing, expected a value"),
            ("volumes/0/config", "[1]", "a list of 1, expected an object of texts"),
            ("volumes/0/config/size", "1", "1, expected a text"),
            ("constraints/0/type", "\"near\"", &format!("\"near\", {kinds}")),
            ("constraints/0/rigidness", "1.1", "1.1, expected a number from 0 to 1"),
            ("constraints/0/threshold", "-1", "-1, expected a number from 0 to 1000000000000"),
            (
                "constraints/0/convergence_time",
                "0.5",
                "0.5, expected a whole number from 0 to 31536000",
            ),
            ("constraints/0/allowed", "\"c\"", "\"c\", expected a list of at most 512"),
            ("connectivity/0/con_constraints", "-", "nothing, expected a value"),
            ("connectivity/0/con_constraints/0/threshold", "-", "nothing, expected a value"),
            ("connectivity/0/con_constraints/0/type", "null", "null, expected a text"),
        ],
    );
    let mut document = good();
    put(&mut document, &format!("{SVC}/volumes/0/config/a.b\n"), Some(Value::Null));
    assert_eq!(
        error_of(&document),
        "$.applications[0].microservices[0].volumes[0].config[\"a.b\\n\"]: null, expected a text"
    );
}

#[test]
fn our_own_fields() {
    let path = "expected an absolute path without '..', at most 4096 bytes";
    check(
        &format!("{SVC}/marram"),
        "$.applications[0].microservices[0].marram",
        &[
            ("runtime", "\"\"", "\"\", expected a text of 1 to 256 bytes without NUL"),
            ("cpu_millicores", "0", "0, expected a whole number from 1 to 4096000"),
            ("pids_max", "0", "0, expected a whole number from 1 to 4194304"),
            (
                "restart",
                "\"sometimes\"",
                "\"sometimes\", expected one of always, on_failure, never",
            ),
            ("stop_grace_s", "3601", "3601, expected a whole number from 0 to 3600"),
            ("working_dir", "\"srv\"", &format!("\"srv\", {path}")),
            ("mounts/0/source", "\"/a/../etc\"", &format!("\"/a/../etc\", {path}")),
            ("mounts/0/target", "-", "nothing, expected a value"),
            ("devices/0", "\"ttyS0\"", &format!("\"ttyS0\", {path}")),
            ("read_only_root", "\"yes\"", "\"yes\", expected true or false"),
            ("log_kib_max", "1", "1, expected a whole number from 16 to 1048576"),
            ("gpu_memory_mib", "-1", "-1, expected a whole number from 0 to 2147483647"),
            ("replicas", "0", "0, expected a whole number from 1 to 10000"),
            ("replicas", "10001", "10001, expected a whole number from 1 to 10000"),
            ("on_loss", "\"stop\"", "\"stop\", expected one of replace, wait"),
            ("move", "true", "true, expected a text"),
            ("move", "\"always\"", "\"always\", expected one of start_first, stop_first, never"),
        ],
    );
    let mut document = good();
    put(&mut document, &format!("{SVC}/marram"), Some(true.into()));
    assert_eq!(
        error_of(&document),
        "$.applications[0].microservices[0].marram: true, expected an object"
    );
}

#[test]
fn a_unikernel_has_an_image_for_each_architecture() {
    let mut document = good();
    put(&mut document, &format!("{SVC}/virtualization"), Some("unikernel".into()));
    let start = "$.applications[0].microservices[0].arch: ";
    let end = "expected one architecture for each image in code";
    assert_eq!(error_of(&document), format!("{start}2 architectures for 1 images, {end}"));
    put(&mut document, &format!("{SVC}/code"), Some("http://a/x,http://a/y".into()));
    sla::parse(document.to_string().as_bytes()).unwrap();
    put(&mut document, &format!("{SVC}/arch"), None);
    assert_eq!(error_of(&document), format!("{start}0 architectures for 2 images, {end}"));
}

#[test]
fn a_service_fits_a_message() {
    let mut document = good();
    let cmd = vec![Value::from("x".repeat(60_000)); 3];
    put(&mut document, &format!("{SVC}/cmd"), Some(cmd.into()));
    let bytes = document["applications"][0]["microservices"][0].to_string().len();
    assert_eq!(
        error_of(&document),
        format!(
            "$.applications[0].microservices[0]: a service of {bytes} bytes, \
             expected at most 97280 bytes"
        )
    );
}

#[test]
fn what_is_no_document() {
    let table: &[(&[u8], &str)] = &[
        (b"", "the document is not JSON at line 1, column 0: EOF while parsing a value"),
        (b"{", "the document is not JSON at line 1, column 1: EOF while parsing an object"),
        (b"sla_version: v1.0", "the document is not JSON at line 1, column 1: expected value"),
        (b"{}\n{}", "the document is not JSON at line 2, column 1: trailing characters"),
        (b"{'a': 1}", "the document is not JSON at line 1, column 2: key must be a string"),
        (b"[1e999]", "the document is not JSON at line 1, column 6: number out of range"),
        (b"[NaN]", "the document is not JSON at line 1, column 2: expected value"),
        (b"{\"a\": \"\xff\"}", "the document is not UTF-8 at byte 7"),
        (b"\xef\xbb\xbf{}", "the document is not JSON at line 1, column 1: expected value"),
        (b"null", "$: null, expected an object"),
        (b"[]", "$: a list of 0, expected an object"),
        (b"\"v2.0\"", "$: \"v2.0\", expected an object"),
    ];
    for (bytes, expected) in table {
        assert_eq!(sla::parse(bytes).unwrap_err().to_string(), *expected);
    }
    let deep = "[".repeat(100_000);
    assert_eq!(
        sla::parse(deep.as_bytes()).unwrap_err().to_string(),
        "the document is not JSON at line 1, column 128: recursion limit exceeded"
    );
    let large = vec![b' '; 2 * SLA_BYTES_MAX];
    assert_eq!(
        sla::parse(&large).unwrap_err().to_string(),
        "the document has 2097152 bytes, at most 1048576 are allowed"
    );
    assert_eq!(sla::parse(&[0xff; 10]), Err(SlaErrors::NotUtf8(0)));
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let mut document = good();
    put(&mut document, "/customerID", None);
    put(&mut document, &format!("{APP}/application_name"), Some("a_b".into()));
    put(&mut document, &format!("{SVC}/memory"), Some((-1).into()));
    put(&mut document, &format!("{SVC}/port"), Some("x".into()));
    let text = error_of(&document);
    assert_eq!(text.lines().count(), 4, "{text}");
    let Err(SlaErrors::Fields(errors)) = sla::check(document) else { panic!("{text}") };
    let pointers: Vec<String> = errors.iter().map(|error| error.path.pointer()).collect();
    let memory = format!("{SVC}/memory");
    let port = format!("{SVC}/port");
    assert_eq!(pointers, ["/customerID", "/applications/0/application_name", &memory, &port]);

    let mut document = good();
    put(&mut document, &format!("{SVC}/cmd"), Some(vec![Value::Null; 500].into()));
    let text = error_of(&document);
    assert_eq!(text.lines().count(), ERRORS_MAX + 1);
    let last = text.lines().next_back().unwrap();
    assert_eq!(last, "$: more than 100 errors, expected those shown to be mended first");
}
