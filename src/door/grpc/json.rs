//! Answers in protobuf's JSON form, for the command line.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::{convert, proto};
use crate::identity::Session;

/// A session as `clerkauthz.v1.Session` in JSON.
pub fn session_json(session: &Session) -> serde_json::Value {
    let message = convert::session(session);
    // The descriptors are compiled in, and the message was made from them.
    let json = || {
        let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).ok()?;
        let descriptor = pool.get_message_by_name("clerkauthz.v1.Session")?;
        let bytes = message.encode_to_vec();
        let message = DynamicMessage::decode(descriptor, bytes.as_slice()).ok()?;
        serde_json::to_value(message).ok()
    };
    json().unwrap_or_default()
}
