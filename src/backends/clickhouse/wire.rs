//! Lengths and bytes as ClickHouse's binary formats have them.

/// LEB128, seven bits at a time.
pub(super) fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    bytes.push(length.to_le_bytes()[0]);
}

/// Bytes behind their length, such as a text.
pub(super) fn push_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    push_length(into, bytes.len());
    into.extend_from_slice(bytes);
}
