//! Answers in protobuf's JSON form, for the command line.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::{convert, proto};
use crate::identity::{Machine, Session};

/// A session as `clerkauthz.v1.Session` in JSON.
pub fn session_json(session: &Session) -> serde_json::Value {
    json("clerkauthz.v1.Session", &convert::session(session))
}

/// A machine as `clerkauthz.v1.Machine` in JSON.
pub fn machine_json(machine: &Machine) -> serde_json::Value {
    json("clerkauthz.v1.Machine", &convert::machine(machine))
}

fn json(name: &str, message: &impl Message) -> serde_json::Value {
    // The descriptors are compiled in, and the message was made from them.
    let json = || {
        let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).ok()?;
        let descriptor = pool.get_message_by_name(name)?;
        let bytes = message.encode_to_vec();
        let message = DynamicMessage::decode(descriptor, bytes.as_slice()).ok()?;
        serde_json::to_value(message).ok()
    };
    json().unwrap_or_default()
}
