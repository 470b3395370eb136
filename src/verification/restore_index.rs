//! The restore index: where the blocks of an archive are.

use pgdump_archive::{BlockIndex, Extent, IndexedBlock};

/// The positions of data blocks in an archive, as a verification found them. With it, a restore of the same
/// generation knows the size in advance and reads several blocks at once.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct RestoreIndex {
    /// Generation of the object; an int64 as a string.
    pub generation: String,
    /// Bytes; an int64 as a string.
    pub size: String,
    /// Base64 of the big-endian CRC32C of the object.
    pub crc32c: String,
    #[serde(flatten)]
    pub index: BlockIndex,
}

/// Reads the fields one by one. What serde derives for `flatten` would keep every unknown value of a file that
/// anybody may have written, at 16 times its size.
impl<'de> serde::Deserialize<'de> for RestoreIndex {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct StoredFields {
            generation: String,
            size: String,
            crc32c: String,
            head: Extent,
            blocks: Vec<IndexedBlock>,
            #[serde(default)]
            tail: Option<Extent>,
        }
        let f = StoredFields::deserialize(input)?;
        Ok(RestoreIndex {
            generation: f.generation,
            size: f.size,
            crc32c: f.crc32c,
            index: BlockIndex {
                head: f.head,
                blocks: f.blocks,
                tail: f.tail,
            },
        })
    }
}
