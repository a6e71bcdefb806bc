//! The root's clean API, as a client that has logged in.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// Speaks to one root.
#[derive(Debug, Clone)]
pub struct Api {
    agent: ureq::Agent,
    base: String,
    token: String,
}

impl Api {
    /// Logs in.
    ///
    /// # Errors
    /// The root cannot be reached or does not know the password.
    pub fn login(base: &str, password: &str) -> anyhow::Result<Self> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .build();
        let agent = ureq::Agent::new_with_config(config);
        let mut api = Self { agent, base: base.to_owned(), token: String::new() };
        let login = json!({"username": "Admin", "password": password});
        let (status, answer) = api.post("/api/auth/login", &login)?;
        let token = answer.get("token").and_then(Value::as_str);
        api.token = token.with_context(|| format!("login: {status} {answer}"))?.to_owned();
        Ok(api)
    }

    /// The root's address, as a client is given it.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// Any GET: the status and the body, which is `null` if it is no JSON.
    ///
    /// # Errors
    /// The root cannot be reached.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        let url = format!("{}{path}", self.base);
        let mut answer = self.agent.get(url).header("Authorization", self.bearer()).call()?;
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// A GET whose body is text.
    ///
    /// # Errors
    /// The root cannot be reached or refuses.
    pub fn text(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("{}{path}", self.base);
        let mut answer = self.agent.get(url).header("Authorization", self.bearer()).call()?;
        let text = answer.body_mut().read_to_string()?;
        if answer.status() != 200 {
            bail!("{path}: {} {text}", answer.status());
        }
        Ok(text)
    }

    /// The stream of events; its lines come when something happens, and it has no end.
    ///
    /// # Errors
    /// The root cannot be reached or refuses.
    pub fn events(&self) -> anyhow::Result<impl BufRead + Send + use<>> {
        // An agent of its own: the other one gives up after a while.
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().build());
        let url = format!("{}/api/v1/events", self.base);
        let answer = agent.get(url).header("Authorization", self.bearer()).call()?;
        Ok(BufReader::new(answer.into_body().into_reader()))
    }

    /// Any POST.
    ///
    /// # Errors
    /// The root cannot be reached.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    /// A POST of a body that need not be JSON.
    ///
    /// # Errors
    /// The root cannot be reached.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> anyhow::Result<(u16, Value)> {
        let url = format!("{}{path}", self.base);
        let request = self.agent.post(url).header("Authorization", self.bearer());
        let mut answer = request.header("Content-Type", "application/json").send(body)?;
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// Any DELETE.
    ///
    /// # Errors
    /// The root cannot be reached.
    pub fn delete(&self, path: &str) -> anyhow::Result<u16> {
        let url = format!("{}{path}", self.base);
        let answer = self.agent.delete(url).header("Authorization", self.bearer()).call()?;
        Ok(answer.status().as_u16())
    }

    /// Applies a document.
    ///
    /// # Errors
    /// It is refused.
    pub fn apply(&self, sla: &Value) -> anyhow::Result<Value> {
        match self.post("/api/v1/apply", sla)? {
            (200, answer) => Ok(answer),
            (status, answer) => bail!("apply: {status} {answer}"),
        }
    }

    /// All instances; empty while the root cannot be reached.
    pub fn instances(&self) -> Vec<Value> {
        self.items("instances")
    }

    /// All items of a kind; empty while the root cannot be reached.
    pub fn items(&self, kind: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/{kind}"));
        let items = answer.ok().and_then(|(_, value)| value.get("items").cloned());
        items.and_then(|items| items.as_array().cloned()).unwrap_or_default()
    }

    /// The instance whose name begins so.
    pub fn instance(&self, name: &str) -> Option<Value> {
        let named = |i: &Value| i["name"].as_str().is_some_and(|n| n.starts_with(name));
        self.instances().into_iter().find(named)
    }

    /// Whether all instances are in a state, and how many there are.
    pub fn all_are(&self, state: &str, count: usize) -> bool {
        let instances = self.instances();
        instances.len() == count && instances.iter().all(|i| i["state"] == state)
    }
}
