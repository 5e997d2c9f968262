//! The Kafka protocol as far as the kernel programs read it: which API a
//! request is for (KIP-511 and before: the header has stayed the same).

/// Names by API key, as the protocol's documentation has them.
const NAMES: [&str; 76] = [
    "Produce",
    "Fetch",
    "ListOffsets",
    "Metadata",
    "LeaderAndIsr",
    "StopReplica",
    "UpdateMetadata",
    "ControlledShutdown",
    "OffsetCommit",
    "OffsetFetch",
    "FindCoordinator",
    "JoinGroup",
    "Heartbeat",
    "LeaveGroup",
    "SyncGroup",
    "DescribeGroups",
    "ListGroups",
    "SaslHandshake",
    "ApiVersions",
    "CreateTopics",
    "DeleteTopics",
    "DeleteRecords",
    "InitProducerId",
    "OffsetForLeaderEpoch",
    "AddPartitionsToTxn",
    "AddOffsetsToTxn",
    "EndTxn",
    "WriteTxnMarkers",
    "TxnOffsetCommit",
    "DescribeAcls",
    "CreateAcls",
    "DeleteAcls",
    "DescribeConfigs",
    "AlterConfigs",
    "AlterReplicaLogDirs",
    "DescribeLogDirs",
    "SaslAuthenticate",
    "CreatePartitions",
    "CreateDelegationToken",
    "RenewDelegationToken",
    "ExpireDelegationToken",
    "DescribeDelegationToken",
    "DeleteGroups",
    "ElectLeaders",
    "IncrementalAlterConfigs",
    "AlterPartitionReassignments",
    "ListPartitionReassignments",
    "OffsetDelete",
    "DescribeClientQuotas",
    "AlterClientQuotas",
    "DescribeUserScramCredentials",
    "AlterUserScramCredentials",
    "Vote",
    "BeginQuorumEpoch",
    "EndQuorumEpoch",
    "DescribeQuorum",
    "AlterPartition",
    "UpdateFeatures",
    "Envelope",
    "FetchSnapshot",
    "DescribeCluster",
    "DescribeProducers",
    "BrokerRegistration",
    "BrokerHeartbeat",
    "UnregisterBroker",
    "DescribeTransactions",
    "ListTransactions",
    "AllocateProducerIds",
    "ConsumerGroupHeartbeat",
    "ConsumerGroupDescribe",
    "ControllerRegistration",
    "GetTelemetrySubscriptions",
    "PushTelemetry",
    "AssignReplicasToDirs",
    "ListConfigResources",
    "DescribeTopicPartitions",
];

/// Versions of an API at most; there are fewer than 20.
const VERSION_MAX: u64 = 31;

/// Bytes of a size, which begins every message and does not count itself.
pub const SIZE_LEN: u32 = 4;

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
mod tests {
    use super::*;

    #[test]
    fn apis_have_the_names_of_their_keys() {
        let head = |key: u64, version: u64| 0x20 << 32 | key << 16 | version;
        for (key, expected) in [
            (0, "Produce"),
            (1, "Fetch"),
            (18, "ApiVersions"),
            (36, "SaslAuthenticate"),
            (60, "DescribeCluster"),
            (68, "ConsumerGroupHeartbeat"),
            (75, "DescribeTopicPartitions"),
        ] {
            assert_eq!(name(api(head(key, 3))), Some(expected));
            assert!(begins(head(key, 3), 0x24));
        }
        assert_eq!(api(head(76, 0)), 0);
        assert_eq!(name(0), None);
        assert!(!begins(head(1, 3), 0x25));
        assert!(!begins(head(1, 77), 0x24));
    }
}
