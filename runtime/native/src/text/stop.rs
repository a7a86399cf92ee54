/// Passes text on until a stop string is complete, and holds back what may be the beginning of one.
///
/// The stop string that is complete first ends the text, the longest of those that end together; so it
/// does not matter in which pieces the text comes.
pub(super) struct StopFilter {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopFilter {
    /// Empty stop strings are ignored.
    pub(super) fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        StopFilter {
            stops,
            held: String::new(),
            stopped: false,
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a special token with this text is one of the stops.
    pub(super) fn stops_at(&self, special_token: &str) -> bool {
        self.stops.iter().any(|stop| stop == special_token)
    }

    /// Ends the text: no more comes. What was held back and became no stop string is part of it.
    pub(super) fn stop(&mut self) -> String {
        self.stopped = true;
        std::mem::take(&mut self.held)
    }

    /// The text that can be shown after one more piece.
    pub(super) fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        let complete = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = complete.min() {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let hold_from = self.held.len() - self.longest_beginning();
        let rest = self.held.split_off(hold_from);
        std::mem::replace(&mut self.held, rest)
    }

    /// Length of the longest end of the held text with which a stop string begins.
    fn longest_beginning(&self) -> usize {
        let beginning = |stop: &String| {
            let mut lengths = stop.char_indices().map(|(length, _)| length).rev();
            lengths
                .find(|&length| self.held.ends_with(&stop[..length]))
                .unwrap_or(0)
        };
        self.stops.iter().map(beginning).max().unwrap_or(0)
    }
}
