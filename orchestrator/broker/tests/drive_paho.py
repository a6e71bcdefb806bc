"""Drives a broker with Eclipse Paho's client and prints what it saw, one JSON object a line.

Called by interop.rs with the port; the same lines are expected of every broker. Waits are for
conditions, each with a deadline.
"""

import json
import ssl  # Paho breaks on its first empty read in a Python that was built without it.
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

assert ssl.OPENSSL_VERSION, "this Python has no ssl module"
PORT = int(sys.argv[1])
DEADLINE_S = 30


class Client:
    """A Paho client that remembers what it got and lets a test wait for it."""

    def __init__(self, name, version, clean=True, expiry=0, will=None):
        self.changed = threading.Condition()
        self.messages, self.codes, self.acknowledged = [], [], 0
        self.session_present = None
        self.gone = False
        v5 = version == mqtt.MQTTv5
        kind = {} if v5 else {"clean_session": clean}
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, **kind)
        self.mqtt.max_inflight_messages_set(20)
        self.mqtt.max_queued_messages_set(0)
        self.mqtt.on_connect = self.on_connect
        self.mqtt.on_subscribe = self.on_subscribe
        self.mqtt.on_message = self.on_message
        self.mqtt.on_publish = self.on_publish
        self.mqtt.on_disconnect = self.on_disconnect
        if will:
            self.mqtt.will_set(will, "gone", qos=1)
        if v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            self.mqtt.connect("127.0.0.1", PORT, clean_start=clean, properties=properties)
        else:
            self.mqtt.connect("127.0.0.1", PORT)
        self.mqtt.loop_start()
        self.wait(lambda: self.session_present is not None)

    def on_connect(self, client, data, flags, code, properties):
        assert code == 0, code
        with self.changed:
            self.session_present = flags.session_present
            self.changed.notify_all()

    def on_subscribe(self, client, data, mid, codes, properties):
        with self.changed:
            self.codes += [code.value for code in codes]
            self.changed.notify_all()

    def on_message(self, client, data, message):
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    def on_publish(self, client, data, mid, code, properties):
        with self.changed:
            self.acknowledged += 1
            self.changed.notify_all()

    def on_disconnect(self, client, data, flags, code, properties):
        with self.changed:
            self.gone = True
            self.changed.notify_all()

    def wait(self, condition):
        end = time.monotonic() + DEADLINE_S
        with self.changed:
            while not condition():
                assert self.changed.wait(end - time.monotonic()), "deadline passed"

    def subscribe(self, topic, qos):
        before = len(self.codes)
        self.mqtt.subscribe(topic, qos)
        self.wait(lambda: len(self.codes) > before)
        return self.codes[-1]

    def publish(self, topic, payloads, qos=1, retain=False):
        goal = self.acknowledged + len(payloads)
        for payload in payloads:
            self.mqtt.publish(topic, payload, qos, retain)
        self.wait(lambda: self.acknowledged >= goal)

    def received(self, count):
        self.wait(lambda: len(self.messages) >= count)
        got, self.messages = self.messages[:count], self.messages[count:]
        return got

    def close(self):
        self.mqtt.disconnect()
        self.wait(lambda: self.gone)
        self.mqtt.loop_stop()

    def abort(self):
        """Breaks off without a DISCONNECT, as a crash would."""
        self.mqtt.loop_stop()
        self.mqtt.socket().close()


def say(**what):
    print(json.dumps(what, sort_keys=True), flush=True)


def run(name, version):
    v5 = version == mqtt.MQTTv5
    publisher = Client("publisher", version)
    client = Client("a", version)
    granted = [client.subscribe("t/+", qos) for qos in (0, 1)]
    publisher.publish("t/x", [str(at) for at in range(100)])
    got = [int(m.payload) for m in client.received(100)]
    say(version=name, step="qos", granted=granted, in_order=got == list(range(100)))

    publisher.publish("r/1", ["kept"], retain=True)
    client.subscribe("r/#", 1)
    kept = client.received(1)[0]
    publisher.publish("r/1", [""], retain=True)
    cleared = client.received(1)[0]
    say(version=name, step="retained", kept=[kept.payload.decode(), kept.retain],
        cleared=[cleared.payload.decode(), cleared.retain])

    client.subscribe("will/#", 1)
    dying = Client("dying", version, will="will/dying")
    dying.abort()
    say(version=name, step="will", topic=client.received(1)[0].topic)
    client.close()

    away = Client("away", version, clean=v5, expiry=300)
    away.subscribe("q", 1)
    away.close()
    publisher.publish("q", [str(at) for at in range(500)])
    back = Client("away", version, clean=False, expiry=300)
    got = [int(m.payload) for m in back.received(500)]
    say(version=name, step="session", present=back.session_present,
        in_order=got == list(range(500)))
    back.close()
    fresh = Client("away", version, clean=True)
    say(version=name, step="clean", present=fresh.session_present)
    fresh.close()
    publisher.close()


run("5", mqtt.MQTTv5)
run("3.1.1", mqtt.MQTTv311)
