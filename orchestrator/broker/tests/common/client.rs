//! A small MQTT client for tests: both versions, every byte its own, nothing done unasked.
//!
//! Why not a library's: a scenario must be able to withhold an acknowledgement, to go silent, and
//! to send what no well-behaved client sends.

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DEADLINE;

/// How to connect. `v5` tells the version.
#[derive(Debug, Clone)]
pub struct Options {
    pub v5: bool,
    pub id: &'static str,
    pub clean: bool,
    pub keep_alive_s: u16,
    pub username: Option<&'static str>,
    pub will: Option<Will>,
    /// MQTT 5 only, as the rest.
    pub session_expiry_s: Option<u32>,
    pub receive_max: Option<u16>,
    pub packet_bytes_max: Option<u32>,
}

/// A will at QoS 1.
#[derive(Debug, Clone)]
pub struct Will {
    pub topic: &'static str,
    pub payload: &'static str,
    pub retain: bool,
    pub delay_s: u32,
}

impl Options {
    pub fn v5(id: &'static str) -> Self {
        Self {
            v5: true,
            id,
            clean: true,
            keep_alive_s: 60,
            username: None,
            will: None,
            session_expiry_s: None,
            receive_max: None,
            packet_bytes_max: None,
        }
    }

    pub fn v311(id: &'static str) -> Self {
        Self { v5: false, ..Self::v5(id) }
    }

    /// Either version by flag, for scenarios that run with both.
    pub fn version(v5: bool, id: &'static str) -> Self {
        Self { v5, ..Self::v5(id) }
    }

    /// A session that outlives its connection, in the way of the version.
    pub fn lasting(mut self, clean: bool) -> Self {
        self.clean = clean;
        self.session_expiry_s = Some(300);
        self
    }

    pub fn will(mut self, topic: &'static str, payload: &'static str, delay_s: u32) -> Self {
        self.will = Some(Will { topic, payload, retain: false, delay_s });
        self
    }
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: u16,
    /// Encoded; empty in 3.1.1.
    pub properties: Vec<u8>,
}

impl Message {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// What a broker sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Publish(Message),
    /// First byte and body of any other packet.
    Other(u8, Vec<u8>),
    /// The connection ended.
    End,
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    io: TcpStream,
    v5: bool,
    buffer: Vec<u8>,
    /// Messages that came while something else was waited for.
    kept: VecDeque<Message>,
    packet_id: u16,
    pub session_present: bool,
    /// The CONNACK's properties, encoded.
    pub properties: Vec<u8>,
}

impl Client {
    /// Connects and insists on being let in.
    pub async fn connect(port: u16, options: &Options) -> Self {
        Self::try_connect(port, options).await.expect("let in")
    }

    /// Connects; an error is the code of the refusal.
    pub async fn try_connect(port: u16, options: &Options) -> Result<Self, u8> {
        let io = TcpStream::connect(("127.0.0.1", port)).await.expect("listens");
        io.set_nodelay(true).expect("a socket");
        let mut client = Self {
            io,
            v5: options.v5,
            buffer: Vec::new(),
            kept: VecDeque::new(),
            packet_id: 0,
            session_present: false,
            properties: Vec::new(),
        };
        client.send(0x10, &connect_body(options)).await;
        match client.receive().await {
            Received::Other(0x20, body) if body[1] == 0 => {
                client.session_present = body[0] & 1 == 1;
                client.properties = body[2..].to_vec();
                Ok(client)
            }
            Received::Other(0x20, body) => Err(body[1]),
            other => panic!("instead of CONNACK: {other:?}"),
        }
    }

    /// Sends a packet as it is.
    pub async fn send(&mut self, header: u8, body: &[u8]) {
        let mut packet = vec![header];
        let mut left = body.len();
        loop {
            let low = u8::try_from(left & 0x7F).expect("seven bits");
            left >>= 7;
            packet.push(low | u8::from(left > 0) << 7);
            if left == 0 {
                break;
            }
        }
        packet.extend(body);
        self.send_raw(&packet).await;
    }

    /// Sends bytes as they are. A broker that hung up is found out when receiving.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        drop(timeout(DEADLINE, self.io.write_all(bytes)).await.expect("takes bytes"));
    }

    /// The next packet, whatever it is.
    pub async fn receive(&mut self) -> Received {
        loop {
            if let Some(received) = self.parse() {
                return received;
            }
            let mut chunk = [0; 4096];
            let read = timeout(DEADLINE, self.io.read(&mut chunk)).await;
            match read.expect("something comes before the deadline") {
                Ok(count) if count > 0 => self.buffer.extend(&chunk[..count]),
                _ => return Received::End,
            }
        }
    }

    fn parse(&mut self) -> Option<Received> {
        let header = *self.buffer.first()?;
        let (mut len, mut at) = (0_usize, 1);
        loop {
            let byte = *self.buffer.get(at)?;
            len |= usize::from(byte & 0x7F) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let body = self.buffer.get(at..at + len)?.to_vec();
        self.buffer.drain(..at + len);
        if header >> 4 != 3 {
            return Some(Received::Other(header, body));
        }
        let qos = header >> 1 & 0b11;
        let (topic, mut rest) =
            body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
        let mut packet_id = 0;
        if qos > 0 {
            packet_id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        let mut properties = Vec::new();
        if self.v5 {
            assert!(rest[0] < 0x80, "tests send few properties");
            let (own, payload) = rest[1..].split_at(usize::from(rest[0]));
            properties = own.to_vec();
            rest = payload;
        }
        Some(Received::Publish(Message {
            topic: String::from_utf8(topic.to_vec()).expect("utf-8"),
            payload: rest.to_vec(),
            qos,
            retain: header & 1 == 1,
            dup: header & 8 == 8,
            packet_id,
            properties,
        }))
    }

    /// Waits for a packet of a kind and keeps messages that come before it.
    pub async fn expect(&mut self, header: u8) -> Vec<u8> {
        loop {
            match self.receive().await {
                Received::Publish(message) => self.keep(message).await,
                Received::Other(found, body) if found == header => return body,
                other => panic!("instead of {header:#x}: {other:?}"),
            }
        }
    }

    async fn keep(&mut self, message: Message) {
        self.acknowledge(&message).await;
        self.kept.push_back(message);
    }

    /// Acknowledges a QoS 1 message.
    pub async fn acknowledge(&mut self, message: &Message) {
        if message.qos == 1 {
            self.send(0x40, &message.packet_id.to_be_bytes()).await;
        }
    }

    /// Subscribes with options bits as MQTT 5 has them; gives the granted QoS or the refusal.
    pub async fn subscribe(&mut self, filter: &str, bits: u8) -> u8 {
        let mut body = self.next_id().to_be_bytes().to_vec();
        if self.v5 {
            body.push(0);
        }
        body.extend(text(filter));
        body.push(bits);
        self.send(0x82, &body).await;
        *self.expect(0x90).await.last().expect("a code per filter")
    }

    /// Unsubscribes; gives the code, or 0 in 3.1.1.
    pub async fn unsubscribe(&mut self, filter: &str) -> u8 {
        let mut body = self.next_id().to_be_bytes().to_vec();
        if self.v5 {
            body.push(0);
        }
        body.extend(text(filter));
        self.send(0xA2, &body).await;
        let answer = self.expect(0xB0).await;
        if self.v5 { *answer.last().expect("a code") } else { 0 }
    }

    /// Publishes; with QoS 1 waits for the acknowledgement and gives its code.
    pub async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> u8 {
        self.publish_with(topic, payload, qos, retain, &[]).await
    }

    /// Publishes with encoded MQTT 5 properties.
    pub async fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        retain: bool,
        properties: &[u8],
    ) -> u8 {
        let mut body = text(topic);
        if qos > 0 {
            body.extend(self.next_id().to_be_bytes());
        }
        if self.v5 {
            body.push(u8::try_from(properties.len()).expect("few properties"));
            body.extend(properties);
        }
        body.extend(payload);
        self.send(0x30 | qos << 1 | u8::from(retain), &body).await;
        if qos == 0 {
            return 0;
        }
        self.expect(0x40).await.get(2).copied().unwrap_or(0)
    }

    fn next_id(&mut self) -> u16 {
        self.packet_id += 1;
        self.packet_id
    }

    /// The next message, acknowledged.
    pub async fn message(&mut self) -> Message {
        if let Some(message) = self.kept.pop_front() {
            return message;
        }
        match self.receive().await {
            Received::Publish(message) => {
                self.acknowledge(&message).await;
                message
            }
            other => panic!("instead of a message: {other:?}"),
        }
    }

    /// So many payloads.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(self.message().await.text());
        }
        texts
    }

    /// Every message that the broker has sent so far. Two rounds of ping: behind the answer to
    /// the second nothing can come that was published before the first was sent.
    pub async fn pending(&mut self) -> Vec<Message> {
        for _ in 0..2 {
            self.send(0xC0, &[]).await;
            self.expect(0xD0).await;
        }
        self.kept.drain(..).collect()
    }

    /// Says goodbye and waits for the end of the connection.
    pub async fn disconnect(mut self) {
        self.send(0xE0, &[]).await;
        self.farewell().await;
    }

    /// Waits until the broker ends the connection; the code if it says one. Mosquitto 2.0.11
    /// mostly hangs up without a word where the standard lets it speak.
    pub async fn farewell(&mut self) -> Option<u8> {
        let mut code = None;
        loop {
            match self.receive().await {
                Received::Other(0xE0, body) => code = body.first().copied(),
                Received::End => return code,
                _ => {}
            }
        }
    }

    /// Breaks off without a goodbye.
    pub fn abort(self) {
        drop(self.io);
    }
}

fn text(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("short");
    [len.to_be_bytes().as_slice(), bytes].concat()
}

fn connect_body(options: &Options) -> Vec<u8> {
    let mut flags = u8::from(options.clean) << 1;
    if let Some(will) = &options.will {
        flags |= 0b1100 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(options.username.is_some()) << 7;
    let mut body = text("MQTT");
    body.extend([if options.v5 { 5 } else { 4 }, flags]);
    body.extend(options.keep_alive_s.to_be_bytes());
    if options.v5 {
        let mut properties = Vec::new();
        if let Some(seconds) = options.session_expiry_s {
            properties.push(17);
            properties.extend(seconds.to_be_bytes());
        }
        if let Some(count) = options.receive_max {
            properties.push(33);
            properties.extend(count.to_be_bytes());
        }
        if let Some(bytes) = options.packet_bytes_max {
            properties.push(39);
            properties.extend(bytes.to_be_bytes());
        }
        body.push(u8::try_from(properties.len()).expect("few properties"));
        body.extend(properties);
    }
    body.extend(text(options.id));
    if let Some(will) = &options.will {
        if options.v5 {
            body.extend([5, 24]);
            body.extend(will.delay_s.to_be_bytes());
        }
        body.extend(text(will.topic));
        body.extend(text(will.payload));
    }
    if let Some(name) = options.username {
        body.extend(text(name));
    }
    body
}
