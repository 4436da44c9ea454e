//! Trace contexts (W3C Trace Context, level 1): the request that caused a message, across
//! processes.

use std::fmt;
use std::str::FromStr;

/// The name of the header, in HTTP and in NATS.
pub const TRACEPARENT: &str = "traceparent";

/// A place in a trace: `00-<trace>-<parent>-<flags>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The id of the trace: one request, through all processes. Never zero.
    pub trace: u128,
    /// The id of the step that causes the next steps. Never zero.
    pub parent: u64,
    /// True if an exporter records the trace.
    pub sampled: bool,
}

impl TraceContext {
    /// Returns the context that `step` of the same trace passes on.
    #[must_use]
    pub fn child(&self, step: u64) -> TraceContext {
        TraceContext {
            parent: step,
            ..*self
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TraceContext {
            trace,
            parent,
            sampled,
        } = self;
        write!(
            f,
            "00-{trace:032x}-{parent:016x}-{:02x}",
            u8::from(*sampled)
        )
    }
}

/// The error of text that is not a trace context. By the specification, the receiver ignores such a
/// header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of W3C Trace Context")]
pub struct TraceError;

impl FromStr for TraceContext {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<TraceContext, TraceError> {
        fn hex(part: &str, digits: usize) -> Result<u128, TraceError> {
            let good = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if part.len() != digits || !part.bytes().all(good) {
                return Err(TraceError);
            }
            u128::from_str_radix(part, 16).map_err(|_| TraceError)
        }
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(TraceError);
        let (version, trace, parent, flags) = (next()?, next()?, next()?, next()?);
        // A later version may have more fields after the flags. Version ff is invalid.
        let version = hex(version, 2)?;
        if version == 0xff || version == 0 && parts.next().is_some() {
            return Err(TraceError);
        }
        let context = TraceContext {
            trace: hex(trace, 32)?,
            parent: u64::try_from(hex(parent, 16)?).map_err(|_| TraceError)?,
            sampled: hex(flags, 2)? & 1 == 1,
        };
        if context.trace == 0 || context.parent == 0 {
            return Err(TraceError);
        }
        Ok(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_valid_contexts_are_read() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: TraceContext = good.parse().unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), good);
        assert_eq!(
            context.child(7).to_string(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01"
        );
        // A later version, with one more field.
        let later = format!("cc{}-more", &good[2..]);
        assert_eq!(later.parse(), Ok(context));
        for wrong in [
            "",
            "00",
            &good[1..],
            &format!("{good}-more"),
            &format!("ff{}", &good[2..]),
            &good.to_uppercase(),
            &good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &good.replace('4', "+"),
            &good[..good.len() - 1],
        ] {
            assert_eq!(wrong.parse::<TraceContext>(), Err(TraceError), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_context_is_read_as_it_was_written(trace in 1_u128.., parent in 1_u64.., sampled: bool) {
            let context = TraceContext { trace, parent, sampled };
            prop_assert_eq!(context.to_string().parse(), Ok(context));
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = text.parse::<TraceContext>();
        }
    }
}
