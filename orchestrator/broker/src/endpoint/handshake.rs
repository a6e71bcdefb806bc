//! The first packet: who is it, may it come in, and what was agreed.
//!
//! Apart from the packets that follow because here nothing of the other side is trusted yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Endpoint, Open, Stage};
use crate::auth::{ConnectRequest, Identity};
use crate::codec::{Connect, Qos, Version, Will, encode};
use crate::config::CLIENT_ID_BYTES_MAX;
use crate::core::quota::Buckets;
use crate::core::{self, ConnectInput, Millis, topic};
use crate::reason::Reason;

impl Endpoint {
    /// Answers a CONNECT. An error is told to the client here, by CONNACK.
    pub(super) fn open(&mut self, now: Millis, connect: Connect) -> Result<(), Reason> {
        let version = connect.version;
        let result = self.admit(now, connect);
        if let Err(reason) = result {
            encode::refused(&mut self.outgoing, version, reason);
            self.wrote_at = now;
        }
        result
    }

    fn admit(&mut self, now: Millis, connect: Connect) -> Result<(), Reason> {
        check(&connect)?;
        let config = &self.shared.config;
        let assigned = connect.client_id.is_empty();
        let client_id: Arc<str> =
            if assigned { new_client_id()? } else { connect.client_id.as_str().into() };
        let identity = self.authorize(&client_id, &connect)?;
        let v5 = connect.version == Version::V5;
        let will = connect.will.map(|will| self.check_will(&identity, v5, will)).transpose()?;
        let expiry_s = connect.session_expiry_s.unwrap_or(u32::MAX);
        let input = ConnectInput {
            client_id: Arc::clone(&client_id),
            owner: identity.shared_name(),
            version: connect.version,
            clean_start: connect.clean_start,
            expiry_s,
            window: connect.receive_max,
            packet_bytes_max: connect.packet_bytes_max,
            will,
        };
        let connected = self.shared.with(|core| core.connect(now, input))?;
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        self.counted = true;
        let packet_bytes_max = u32::try_from(config.packet_bytes_max).unwrap_or(u32::MAX);
        let welcome = encode::Welcome {
            session_present: connected.session_present,
            session_expiry_s: expiry_s.min(config.session_expiry_s_max),
            receive_max: config.inflight_max,
            packet_bytes_max,
            topic_aliases_max: config.topic_aliases_max,
            assigned_client_id: assigned.then_some(&*client_id),
        };
        encode::welcome(&mut self.outgoing, connect.version, &welcome);
        self.wrote_at = now;
        let quota = identity.quota().unwrap_or(config.quota);
        // The standard lets a client be silent for one and a half intervals.
        let keep_alive_ms = u64::from(connect.keep_alive_s) * 1500;
        tracing::debug!(client = %client_id, identity = identity.name(), "client connected");
        self.stage = Stage::Open(Open {
            link: connected.link,
            version: connect.version,
            identity,
            keep_alive_ms,
            quota: Buckets::new(quota, now),
            aliases: Vec::new(),
        });
        Ok(())
    }

    fn authorize(&self, client_id: &str, connect: &Connect) -> Result<Identity, Reason> {
        let request = ConnectRequest {
            client_id,
            username: connect.username.as_deref(),
            password: connect.password.as_deref(),
            peer: &self.peer,
            address: self.address,
        };
        self.shared.authorizer.connect(&request).map_err(|refused| {
            let address = self.address;
            tracing::info!(client = %client_id, ?address, %refused, "client refused");
            self.shared.with(|core| core.stats.connections_refused += 1);
            refused.reason
        })
    }

    /// A will is a publish that is made in advance, so it needs the same right.
    fn check_will(&self, identity: &Identity, v5: bool, will: Will) -> Result<core::Will, Reason> {
        if !topic::is_topic(&will.topic) {
            return Err(Reason::Topic);
        }
        if v5 && will.qos > 1 {
            return Err(Reason::Qos);
        }
        if !self.shared.authorizer.publish(identity, &will.topic) {
            return Err(Reason::NotAuthorized);
        }
        Ok(core::Will {
            topic: will.topic.into(),
            payload: will.payload,
            qos: if will.qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce },
            retain: will.retain,
            delay_s: will.delay_s,
            expiry_s: will.expiry_s,
            properties: will.properties,
        })
    }
}

/// An id for a client that brought none. Random, so that nobody can guess it and take it over.
fn new_client_id() -> Result<Arc<str>, Reason> {
    let mut random = [0; 16];
    if let Err(error) = getrandom::fill(&mut random) {
        tracing::error!(%error, "the system gives no random numbers");
        return Err(Reason::Busy);
    }
    Ok(format!("auto-{:032x}", u128::from_be_bytes(random)).into())
}

fn check(connect: &Connect) -> Result<(), Reason> {
    if connect.auth_method {
        return Err(Reason::AuthMethod);
    }
    let id = &connect.client_id;
    let resumes_nameless =
        id.is_empty() && connect.version == Version::V311 && !connect.clean_start;
    if id.len() > CLIENT_ID_BYTES_MAX || id.contains('\0') || resumes_nameless {
        return Err(Reason::ClientId);
    }
    Ok(())
}
