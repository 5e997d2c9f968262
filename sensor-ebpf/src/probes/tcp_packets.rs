//! The exchanges of [`super::tcp`] from packets, for kernels without the socket
//! tracepoints (before 6.3). These hooks are older than the helpers that all
//! programs need.
//!
//! A response begins when its first packet leaves, not when it is handed to
//! the kernel; that differs while the window is full. What is transmitted
//! again is not sent again.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel,
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use sensor_common::record::Loss;

use super::tcp::{
    Socket, Sockets, get_or_create, is_tcp, on_ready, on_receive, on_state, sent, states,
};
use crate::{
    kernel::{
        OFFSET_SKB_DATA, OFFSET_SKB_HEAD, OFFSET_SKB_LEN, OFFSET_SKB_SOCK,
        OFFSET_SKB_TRANSPORT_HEADER, OFFSET_TCP_SRTT, Object, load, load_untyped,
    },
    loss,
    user_buffer::OfSystemCall,
};

/// State by address of the socket: the socket of a packet is no pointer that
/// socket storage takes.
#[map]
static SOCKETS_BY_ADDRESS: LruHashMap<u64, Socket> = LruHashMap::with_max_entries(16_384, 0);

/// In [`SOCKETS_BY_ADDRESS`].
pub(super) struct ByAddress;

impl Sockets for ByAddress {
    const SEES_UNIX: bool = false;

    #[inline(always)]
    unsafe fn existing(socket: Object) -> Option<&'static mut Socket> {
        let state = SOCKETS_BY_ADDRESS.get_ptr_mut(socket as u64)?;
        // SAFETY: a live map value; the socket's lock, or the one CPU that
        // receives for it, keeps others away.
        unsafe { state.as_mut() }
    }

    #[inline(always)]
    unsafe fn create(socket: Object) -> Option<&'static mut Socket> {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(state) = Self::existing(socket) {
                return Some(state);
            }
            if SOCKETS_BY_ADDRESS
                .insert(socket as u64, Socket::NEW, 0)
                .is_err()
            {
                loss::count(Loss::StateFull);
                return None;
            }
            Self::existing(socket)
        }
    }

    #[inline(always)]
    unsafe fn smoothed_rtt(socket: Object) -> Option<u32> {
        // SAFETY: a `tcp_sock` begins with its `sock`.
        unsafe { load_untyped(socket, &OFFSET_TCP_SRTT) }
    }
}

/// The part of a TCP header up to its length (RFC 9293, 3.1).
type Header = [u8; 16];

/// Bytes that the whole header takes.
#[inline(always)]
fn length(header: &Header) -> u32 {
    u32::from(header[12] >> 4) * 4
}

/// Number of the first byte of the payload.
#[inline(always)]
fn sequence(header: &Header) -> u32 {
    u32::from_be_bytes([header[4], header[5], header[6], header[7]])
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn tcp_state_by_address(context: BtfTracePointContext) -> i32 {
    let (socket, old, new): (Object, i32, i32) = (context.arg(0), context.arg(1), context.arg(2));
    // SAFETY: the socket is the first argument.
    unsafe { on_state::<ByAddress>(socket, old, new) };
    if new == states::CLOSE {
        let _ = SOCKETS_BY_ADDRESS.remove(socket as u64);
    }
    0
}

/// An established connection received a segment.
#[btf_tracepoint(function = "tcp_probe")]
pub fn tcp_segment(context: BtfTracePointContext) -> i32 {
    // SAFETY: arguments of the tracepoint: sock, skb.
    unsafe { on_segment(context.arg(0), context.arg(1)) };
    0
}

#[inline(always)]
unsafe fn on_segment(socket: Object, packet: Object) -> Option<()> {
    // SAFETY: a packet of the tracepoint; its data begins with the TCP header.
    unsafe {
        let length_with_header: u32 = load(packet, &OFFSET_SKB_LEN);
        let data: u64 = load(packet, &OFFSET_SKB_DATA);
        let header = bpf_probe_read_kernel(data as *const Header).ok()?;
        if length_with_header <= length(&header) {
            return None;
        }
        on_ready::<ByAddress>(socket)
    }
}

/// Data was copied to whoever reads.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn tcp_read(context: BtfTracePointContext) -> i32 {
    // SAFETY: the socket is the first argument.
    unsafe {
        let socket: Object = context.arg(0);
        on_receive::<ByAddress>(socket, ByAddress::existing(socket), OfSystemCall(0));
    }
    0
}

/// A packet is handed to a device.
#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn tcp_transmit(context: BtfTracePointContext) -> i32 {
    // SAFETY: the packet is the first argument.
    unsafe { on_transmit(context.arg(0)) };
    0
}

#[inline(always)]
unsafe fn on_transmit(packet: Object) -> Option<()> {
    // SAFETY: a packet of the tracepoint; each load follows a pointer just loaded.
    unsafe {
        let socket: Object = load(packet, &OFFSET_SKB_SOCK);
        if socket.is_null() || !is_tcp(socket) {
            return None;
        }
        let head: u64 = load(packet, &OFFSET_SKB_HEAD);
        let data: u64 = load(packet, &OFFSET_SKB_DATA);
        let transport: u16 = load(packet, &OFFSET_SKB_TRANSPORT_HEADER);
        let all: u32 = load(packet, &OFFSET_SKB_LEN);
        let begin = head + u64::from(transport);
        let header = bpf_probe_read_kernel(begin as *const Header).ok()?;
        let before_payload = (begin - data) as u32 + length(&header);
        if all <= before_payload {
            return None;
        }
        let end = sequence(&header).wrapping_add(all - before_payload);
        let state = get_or_create::<ByAddress>(socket, ByAddress::existing(socket))?;
        let is_old = state.transmitted != 0 && end.wrapping_sub(state.transmitted) as i32 <= 0;
        if is_old {
            return None;
        }
        state.transmitted = end;
        sent::<ByAddress>(socket, state, OfSystemCall(all - before_payload))
    }
}
