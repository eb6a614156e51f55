//! How `Check` is read and answered on the wire.

use bytes::{Buf, BufMut, Bytes};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// A `CheckRequest` as it came over the wire.
pub(super) struct Received(pub(super) Bytes);

/// A `CheckResponse` as it goes over the wire.
pub(super) struct Encoded(pub(super) Vec<u8>);

/// Takes a [`Received`], answers with an [`Encoded`].
#[derive(Default)]
pub(super) struct CheckCodec;

impl Codec for CheckCodec {
    type Encode = Encoded;
    type Decode = Received;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for CheckCodec {
    type Item = Encoded;
    type Error = Status;

    fn encode(&mut self, Encoded(bytes): Encoded, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(bytes.len());
        to.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for CheckCodec {
    type Item = Received;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Received>, Status> {
        Ok(Some(Received(from.copy_to_bytes(from.remaining()))))
    }
}
