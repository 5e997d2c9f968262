//! How requests of Kafka ended.

use sensor_common::{
    kafka::{self, PART_LEN, Part},
    record::Loss,
};

use crate::{loss, user_buffer::UserBuffer};

/// Status class of the response to `request` (see [`kafka::has_error_code`]) whose
/// head ends at `place` of a buffer; 0 if it should have an error code and
/// that is not within reach.
#[inline(always)]
pub fn class(buffer: UserBuffer, request: u32, place: u32) -> u32 {
    kafka_class(
        buffer.address(),
        buffer.len(),
        u64::from(request),
        u64::from(place),
    ) as u32
}

/// A function of its own with numbers as arguments, so that the verifier walks
/// through it once, and not once for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn kafka_class(address: u64, len: u64, request: u64, place: u64) -> u64 {
    let request = request as u32;
    if !kafka::has_error_code(request) {
        return 2;
    }
    let buffer = UserBuffer::new(address, len);
    let part = |at: u32| {
        let mut bytes = [0; PART_LEN];
        let len = buffer.fill(place + u64::from(at), &mut bytes)?;
        Some(Part::new(bytes, len))
    };
    match kafka::error_code(request, part) {
        Some(code) => u64::from(kafka::class(code)),
        None => {
            loss::count(Loss::RequestIncomplete);
            0
        }
    }
}
