//! How records are written, and how they stay small: fields at their default
//! are left out and come back as the default when they are read.

use crate::{Error, Kind, Result};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes that one encoded record may have.
pub const MAX_RECORD: usize = 1 << 20;

/// Writes `record` as MessagePack with field names;
/// [`Kind::ResourceExhausted`] when it is larger than [`MAX_RECORD`].
pub(crate) fn encode(what: &str, record: &impl Serialize) -> Result<Vec<u8>> {
    let bytes = rmp_serde::to_vec_named(record).map_err(|e| {
        Error::internal(format!("{what}: the record can't be encoded")).with_source(e)
    })?;
    if bytes.len() > MAX_RECORD {
        let size = bytes.len();
        return Err(Error::new(
            Kind::ResourceExhausted,
            format!(
                "{what}: the record has {size} bytes, more than the {MAX_RECORD} that the store takes; use fewer or shorter labels, annotations and options"
            ),
        ));
    }
    Ok(bytes)
}

/// Reads what [`encode`] wrote; [`Kind::DataLoss`] when it is something else.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes)
        .map_err(|e| Error::new(Kind::DataLoss, "a stored record can't be decoded").with_source(e))
}

/// Whether `value` is what its type starts as.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares a record whose default fields are not stored. A field that is
/// added later reads as its default from older records, and a field that is
/// taken away is ignored, so such records need no migration.
macro_rules! sparse {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident : $type:ty, )*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "crate::record::is_default")]
                pub $field: $type,
            )*
        }
    )*};
}

pub(crate) use sparse;

/// Bytes as MessagePack's own byte string; a plain `Vec<u8>` would be written
/// as an array of numbers and cost up to twice as much. For `serde(with)`.
pub(crate) mod byte_string {
    use serde::{Deserializer, Serializer, de};
    use std::fmt;

    /// Writes `bytes` as a byte string.
    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads a byte string (or an array of numbers, as JSON has it).
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl<'de> de::Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = seq.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}
