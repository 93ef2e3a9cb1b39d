//! Resources as the agent serves them: one file for each type, the same bytes for the same resources.

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{Message, Name};
use sha2::{Digest as _, Sha256};

use crate::problem::Subject;
use crate::render::SourceMap;
use crate::render::release::{File, RelativePath};

/// A resource: its name, its bytes, and the object it comes from.
pub(super) struct Named {
    pub name: String,
    pub bytes: Vec<u8>,
    pub source: Option<Subject>,
}

/// The resources of one type.
pub(super) struct Resources {
    type_url: String,
    list: Vec<Named>,
}

impl Resources {
    /// All resources of a type.
    pub fn new<T: Name>(mut list: Vec<Named>) -> Self {
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Self { type_url: T::type_url(), list }
    }

    /// As a file of a release. In the source map its n-th resource is its n-th line.
    pub fn file(self, path: &RelativePath, map: &mut SourceMap) -> File {
        let lines = 1..;
        map.insert(path.as_str(), lines.zip(self.list.iter().map(|named| named.source.clone())).collect());
        let type_url = &self.type_url;
        let resource = |named: Named| Resource {
            name: named.name,
            version: version(&named.bytes),
            resource: Some(Any { type_url: type_url.clone(), value: named.bytes }),
            ..Resource::default()
        };
        let resources = self.list.into_iter().map(resource).collect();
        let response =
            DeltaDiscoveryResponse { resources, type_url: type_url.clone(), ..DeltaDiscoveryResponse::default() };
        File::public(response.encode_to_vec())
    }
}

/// Appends a field of a message to the bytes of another: how a message is written whose maps have several entries, since
/// prost would write those in an order of chance. Concatenated messages are merged, by definition of the format.
pub(super) fn append(bytes: &mut Vec<u8>, field: u32, message: &[u8]) {
    encode_key(field, WireType::LengthDelimited, bytes);
    encode_varint(message.len() as u64, bytes);
    bytes.extend_from_slice(message);
}

/// Equal content has an equal version.
fn version(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect()
}
