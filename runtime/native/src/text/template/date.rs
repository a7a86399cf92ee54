//! `strftime_now` of transformers: `datetime.now().strftime(format)` in the C locale.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use minijinja::Error;

use super::limits::Growing;

/// The clock on the wall: local time, whose zone templates do not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WallTime(DateTime);

impl WallTime {
    /// A time in seconds since the same clock showed the beginning of 1970; at most the end of year 9999.
    pub(crate) fn from_seconds(seconds: u64) -> Self {
        let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX).min(253_402_300_799);
        WallTime(epoch.saturating_add(jiff::SignedDuration::from_secs(seconds)))
    }

    /// The system's clock in the system's time zone; `None` in a browser, where there is neither.
    pub(crate) fn now() -> Option<Self> {
        // The clock of Rust's library panics in a browser.
        (!cfg!(target_arch = "wasm32")).then(|| WallTime(jiff::Zoned::now().datetime()))
    }

    /// As Python and its C library write it: without a zone, and with directives that nobody knows left as they are.
    pub(super) fn strftime(self, format: &str) -> Result<String, Error> {
        let mut out = Growing::default();
        let mut rest = format;
        while let Some(start) = rest.find('%') {
            out.push_str(&rest[..start])?;
            let directive = &rest[start..];
            let length = length_of_directive(directive);
            self.write_directive(&mut out, &directive[..length])?;
            rest = &directive[length..];
        }
        out.push_str(rest)?;
        Ok(out.finish())
    }

    fn write_directive(self, out: &mut Growing, directive: &str) -> Result<(), Error> {
        match directive.trim_start_matches(['%', '-', '_', '^', '#']) {
            "z" | "Z" => Ok(()),
            "c" => out.push_str(&self.strftime("%a %b %e %H:%M:%S %Y")?),
            "x" => out.push_str(&self.strftime("%m/%d/%y")?),
            "X" => out.push_str(&self.strftime("%H:%M:%S")?),
            "r" => out.push_str(&self.strftime("%I:%M:%S %p")?),
            "f" => out.push_str(&format!("{:06}", self.0.subsec_nanosecond() / 1000)),
            _ if !directive.ends_with(|c| "aAbBCdDeFgGhHIjklmMnpPRsStTuUVwWyY%".contains(c)) => out.push_str(directive),
            // `E` and `O` ask for other digits and eras, which the C locale has not.
            _ => {
                let plain = directive.replace(['E', 'O'], "");
                // Only seconds since 1970 depend on the zone, and elsewhere it may have no such hour.
                let zone = if plain.ends_with('s') {
                    TimeZone::system()
                } else {
                    TimeZone::UTC
                };
                let zoned = self.0.to_zoned(zone);
                let written = zoned.and_then(|zoned| strtime::format(&plain, &zoned));
                out.push_str(written.as_deref().unwrap_or(directive))
            }
        }
    }
}

/// Bytes of `%`, flags, width, modifier and letter.
fn length_of_directive(text: &str) -> usize {
    let mut chars = text
        .char_indices()
        .skip(1)
        .skip_while(|&(_, c)| "-_0^#123456789EO".contains(c));
    chars.next().map_or(text.len(), |(at, c)| at + c.len_utf8())
}
