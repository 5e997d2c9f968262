//! The Kafka protocol as far as the kernel programs read it: which API a
//! request is for (KIP-511 and before: the header has stayed the same), and the
//! error code of its response.

use self::response::Layout;
pub use self::response::{PART_LEN, Part, class, error_code, has_error_code};

mod response;

/// Two arrays with a place for each API key: its name in the protocol's
/// documentation, and where its responses have an error code.
macro_rules! apis {
    ($($name:literal: $kind:ident $(.$first_of:ident($version:literal))*,)*) => {
        const NAMES: [&str; [$($name),*].len()] = [$($name),*];
        static LAYOUTS: [Layout; NAMES.len()] =
            [$(Layout::$kind$(.$first_of($version))*),*];
    };
}

apis! {
    "Produce": PARTITIONS.flexible(9).ids(13),
    "Fetch": PARTITIONS.top(7).throttled(1).flexible(12),
    "ListOffsets": PARTITIONS.throttled(2).flexible(6),
    "Metadata": NONE,
    "LeaderAndIsr": NONE,
    "StopReplica": NONE,
    "UpdateMetadata": NONE,
    "ControlledShutdown": NONE,
    "OffsetCommit": PARTITIONS.throttled(3).flexible(8).ids(10),
    "OffsetFetch": NONE,
    "FindCoordinator": TOP.top_until(3).throttled(1).flexible(3),
    "JoinGroup": TOP.throttled(2).flexible(6),
    "Heartbeat": TOP.throttled(1).flexible(4),
    "LeaveGroup": TOP.throttled(1).flexible(4),
    "SyncGroup": TOP.throttled(1).flexible(4),
    "DescribeGroups": FIRST.throttled(1).flexible(5),
    "ListGroups": TOP.throttled(1).flexible(3),
    "SaslHandshake": TOP,
    "ApiVersions": TOP,
    "CreateTopics": NAMED.throttled(2).flexible(5).ids(7),
    "DeleteTopics": NAMED.throttled(1).flexible(4).ids(6),
    "DeleteRecords": NONE,
    "InitProducerId": TOP.throttled(0).flexible(2),
    "OffsetForLeaderEpoch": NONE,
    "AddPartitionsToTxn": PARTITIONS.top(4).throttled(0).flexible(3),
    "AddOffsetsToTxn": TOP.throttled(0).flexible(3),
    "EndTxn": TOP.throttled(0).flexible(3),
    "WriteTxnMarkers": NONE,
    "TxnOffsetCommit": PARTITIONS.throttled(0).flexible(3),
    "DescribeAcls": TOP.throttled(0).flexible(2),
    "CreateAcls": FIRST.throttled(0).flexible(2),
    "DeleteAcls": FIRST.throttled(0).flexible(2),
    "DescribeConfigs": FIRST.throttled(0).flexible(4),
    "AlterConfigs": FIRST.throttled(0).flexible(2),
    "AlterReplicaLogDirs": PARTITIONS.throttled(0).flexible(2),
    "DescribeLogDirs": FIRST.top(3).throttled(0).flexible(2),
    "SaslAuthenticate": TOP.flexible(2),
    "CreatePartitions": NAMED.throttled(0).flexible(2),
    "CreateDelegationToken": TOP.flexible(2),
    "RenewDelegationToken": TOP.flexible(2),
    "ExpireDelegationToken": TOP.flexible(2),
    "DescribeDelegationToken": TOP.flexible(2),
    "DeleteGroups": NAMED.throttled(0).flexible(2),
    "ElectLeaders": PARTITIONS.top(1).throttled(0).flexible(2),
    "IncrementalAlterConfigs": FIRST.throttled(0).flexible(1),
    "AlterPartitionReassignments": TOP.top_until(0).throttled(0).flexible(0),
    "ListPartitionReassignments": TOP.throttled(0).flexible(0),
    "OffsetDelete": TOP,
    "DescribeClientQuotas": TOP.throttled(0).flexible(1),
    "AlterClientQuotas": FIRST.throttled(0).flexible(1),
    "DescribeUserScramCredentials": TOP.throttled(0).flexible(0),
    "AlterUserScramCredentials": NAMED.throttled(0).flexible(0),
    "Vote": TOP.flexible(0),
    "BeginQuorumEpoch": TOP.flexible(1),
    "EndQuorumEpoch": TOP.flexible(1),
    "DescribeQuorum": TOP.flexible(0),
    "AlterPartition": TOP.throttled(0).flexible(2),
    "UpdateFeatures": TOP.throttled(0).flexible(0),
    "Envelope": NONE,
    "FetchSnapshot": TOP.throttled(0).flexible(0),
    "DescribeCluster": TOP.throttled(0).flexible(0),
    "DescribeProducers": PARTITIONS.throttled(0).flexible(0),
    "BrokerRegistration": TOP.throttled(0).flexible(0),
    "BrokerHeartbeat": TOP.throttled(0).flexible(0),
    "UnregisterBroker": TOP.throttled(0).flexible(0),
    "DescribeTransactions": FIRST.throttled(0).flexible(0),
    "ListTransactions": TOP.throttled(0).flexible(0),
    "AllocateProducerIds": TOP.throttled(0).flexible(0),
    "ConsumerGroupHeartbeat": TOP.throttled(0).flexible(0),
    "ConsumerGroupDescribe": FIRST.throttled(0).flexible(0),
    "ControllerRegistration": TOP.throttled(0).flexible(0),
    "GetTelemetrySubscriptions": TOP.throttled(0).flexible(0),
    "PushTelemetry": TOP.throttled(0).flexible(0),
    "AssignReplicasToDirs": TOP.throttled(0).flexible(0),
    "ListConfigResources": TOP.throttled(0).flexible(0),
    "DescribeTopicPartitions": FIRST.throttled(0).flexible(0),
    "ShareGroupHeartbeat": TOP.throttled(0).flexible(1),
    "ShareGroupDescribe": FIRST.throttled(0).flexible(1),
    "ShareFetch": TOP.throttled(0).flexible(1),
    "ShareAcknowledge": TOP.throttled(0).flexible(1),
    "AddRaftVoter": TOP.throttled(0).flexible(0),
    "RemoveRaftVoter": TOP.throttled(0).flexible(0),
    "UpdateRaftVoter": TOP.throttled(0).flexible(0),
    "InitializeShareGroupState": PARTITIONS.flexible(0).ids(0),
    "ReadShareGroupState": PARTITIONS.flexible(0).ids(0),
    "WriteShareGroupState": PARTITIONS.flexible(0).ids(0),
    "DeleteShareGroupState": PARTITIONS.flexible(0).ids(0),
    "ReadShareGroupStateSummary": PARTITIONS.flexible(0).ids(0),
    "StreamsGroupHeartbeat": TOP.throttled(0).flexible(0),
    "StreamsGroupDescribe": FIRST.throttled(0).flexible(0),
    "DescribeShareGroupOffsets": NONE,
    "AlterShareGroupOffsets": TOP.throttled(0).flexible(0),
    "DeleteShareGroupOffsets": TOP.throttled(0).flexible(0),
}

/// Versions of an API at most; there are fewer than 20.
const VERSION_MAX: u64 = 31;

/// Bytes of a size, which begins every message and does not count itself.
pub const SIZE_LEN: u32 = 4;

/// Bytes of the size and the correlation id, which begin every response.
pub const RESPONSE_HEAD_LEN: u32 = 8;

/// Whether `head` begins a request that is all of a read of `len` bytes; many
/// readers read the size on its own, and then `len` is of both reads.
#[inline(always)]
pub fn begins(head: u64, len: u32) -> bool {
    let size = (head >> 32) as u32;
    // Behind the API and its version: the correlation id and a client's name.
    size.wrapping_add(SIZE_LEN) == len
        && size >= 10
        && (head >> 16 & 0xffff) < NAMES.len() as u64
        && (head & 0xffff) <= VERSION_MAX
}

/// Number of the API of a request: its key plus 1; 0 if it is not known.
#[inline(always)]
pub fn api(head: u64) -> u16 {
    let key = (head >> 16 & 0xffff) as u16;
    if usize::from(key) < NAMES.len() {
        key + 1
    } else {
        0
    }
}

/// The name of an API by [`api`].
pub fn name(number: u16) -> Option<&'static str> {
    NAMES.get(usize::from(number).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests;
