//! Requests that were read with one that is answered, see [`crate::pipeline`].

use sensor_common::protocol;

use super::Requests;
use crate::{
    http1,
    pipeline::{self, Charge},
    scan,
    user_buffer::Source,
};

impl Requests {
    /// Whether requests wait that were read with one that is answered.
    #[inline(always)]
    pub fn has_pending(&self) -> bool {
        self.pending != 0
    }

    /// Counts the requests behind the first one whose responses begin in what
    /// is `sent`, which `begins` with the response to the first one or not.
    #[inline(always)]
    pub fn others_answered(&mut self, sent: impl Source, begins: bool, charge: Charge) {
        if !self.in_order {
            return;
        }
        let is_http = self.protocol == protocol::HTTP;
        let Some(buffer) = sent.buffer() else {
            // Of HTTP it may be a body, and responses are found by their begin.
            self.in_order = is_http;
            return;
        };
        let before = u32::from(begins);
        let pending = u32::from(self.pending);
        let found = if is_http {
            http1::responses(buffer, pending + before)
        } else {
            let replies = scan::replies(buffer, pending + before);
            self.in_order = replies.is_whole;
            replies.count
        };
        let count = found.saturating_sub(before);
        if count == 0 || count > pending {
            return;
        }
        let first = u32::from(self.answered) + 1;
        pipeline::answered(self.id, (first, before, count), charge);
        self.pending -= count as u8;
        self.answered += count as u8;
    }

    /// Counts what still waits, without knowing how it ended.
    #[inline(always)]
    pub fn give_up_pending(&mut self, charge: Charge) {
        scan::unknown();
        let first = u32::from(self.answered) + 1;
        pipeline::answered(self.id, (first, 0, u32::from(self.pending)), charge);
        self.pending = 0;
    }
}
