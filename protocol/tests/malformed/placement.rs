//! What is wrong with the fields that say where a service runs and when it is lost.

use crate::{SVC, check, error_of, good, put};
use serde_json::{Value, json};

#[test]
fn patience_agrees_with_itself() {
    let seconds = "expected a whole number from 1 to 31536000";
    check(
        &format!("{SVC}/marram"),
        "$.applications[0].microservices[0].marram",
        &[
            ("patience", "5", "5, expected an object"),
            ("patience/node_s", "-1", &format!("-1, {seconds}")),
            ("patience/cluster_s", "1.5", &format!("1.5, {seconds}")),
            ("patience/parent_s", "\"9\"", &format!("\"9\", {seconds}")),
        ],
    );
    let path = "$.applications[0].microservices[0].marram.patience";
    let patience = |value: Value| {
        let mut document = good();
        put(&mut document, &format!("{SVC}/marram/patience"), Some(value));
        document
    };
    assert_eq!(
        error_of(&patience(json!({"node_s": 60, "cluster_s": 50, "parent_s": 50}))),
        format!("{path}.parent_s: 50, expected less than node_s and cluster_s, here 50")
    );
    assert_eq!(
        error_of(&patience(json!({"parent_s": 300}))),
        format!("{path}.parent_s: 300, expected less than node_s and cluster_s, here 300")
    );
    let mut document = patience(json!({"node_s": 60, "parent_s": 900}));
    put(&mut document, &format!("{SVC}/marram/on_loss"), Some("wait".into()));
    assert_eq!(
        error_of(&document),
        format!("{path}.node_s: 60, expected nothing, since on_loss is wait")
    );
}

#[test]
fn where_it_may_run() {
    let reference =
        "expected SERVICE, SERVICE.NAMESPACE, APP.APPNAMESPACE.SERVICE.NAMESPACE or an id";
    let word = "expected a text of 1 to 64 bytes without NUL";
    check(
        &format!("{SVC}/marram"),
        "$.applications[0].microservices[0].marram",
        &[
            ("placement", "[]", "a list of 0, expected an object"),
            (
                "placement/labels",
                "\"a,,b\"",
                "\"a,,b\", expected another: selector \"a,,b\", character 3: a word is missing",
            ),
            (
                "placement/spread",
                "\"a=b\"",
                "\"a=b\", expected a label's key: 1 to 64 bytes without '='",
            ),
            ("placement/with", "\"db\"", "\"db\", expected a list of at most 32"),
            ("placement/with/0", "\"a.b.c\"", &format!("\"a.b.c\", {reference}")),
            ("placement/apart_from/0", "\"\"", &format!("\"\", {reference}")),
            ("placement/policy", "\"random\"", "\"random\", expected one of best-fit, spread, ldp"),
            ("placement/priority", "1001", "1001, expected a whole number from -1000 to 1000"),
            ("placement/priority", "0.5", "0.5, expected a whole number from -1000 to 1000"),
            ("placement/addons/0", "\" \"", &format!("\" \", {word}")),
        ],
    );
    let path = "$.applications[0].microservices[0]";
    let place = "expected a place: LATITUDE,LONGITUDE in degrees";
    check(
        SVC,
        path,
        &[
            (
                "constraints/0/node",
                "\"n1;n=\"",
                "\"n1;n=\", expected others: selector \"n=\", character 3: a word is missing",
            ),
            (
                "constraints/1/allowed/0",
                "\"\"",
                "\"\", expected another: selector \"\", character 1: a word is missing",
            ),
            ("constraints/2/needs/0", "\"\"", &format!("\"\", {word}")),
            ("constraints/3/threshold", "-", "nothing, expected a value"),
            ("constraints/3/area", "\"\"", "nothing, expected a value"),
            ("constraints/4/location", "-", "nothing, expected a value"),
            ("constraints/4/location", "\"north\"", &format!("\"north\", {place}")),
            ("constraints/4/location", "\"91,0\"", &format!("\"91,0\", {place}")),
            ("connectivity/0/target_microservice_id", "\"a b\"", &format!("\"a b\", {reference}")),
        ],
    );
    let mut document = good();
    let many: Vec<Value> = (0..40).map(|n| format!("a{n}=b").into()).collect();
    let constraints = json!([
        {"type": "clusters", "allowed": many},
        {"type": "clusters", "allowed": (0..40).map(|n| format!("c{n}-*")).collect::<Vec<_>>()},
    ]);
    put(&mut document, &format!("{SVC}/constraints"), Some(constraints));
    assert_eq!(
        error_of(&document),
        format!(
            "{path}.constraints[1]: too many combinations of patterns, expected at most 512 together"
        )
    );
}

#[test]
fn bounds_on_ways_are_few() {
    let mut document = good();
    let one = json!({"type": "latency", "threshold": 1, "rigidness": 1, "convergence_time": 1});
    let target = json!({"target_microservice_id": "db", "con_constraints": vec![one; 31]});
    put(&mut document, &format!("{SVC}/connectivity"), Some(json!([target])));
    assert_eq!(
        error_of(&document),
        "$.applications[0].microservices[0].connectivity: 33 bounds on latency and distance, \
         expected at most 32, those among the constraints included"
    );
}
