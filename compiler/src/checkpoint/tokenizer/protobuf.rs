//! As much of protocol buffers' wire format as SentencePiece's models need:
//! <https://protobuf.dev/programming-guides/encoding/>.

/// A field's number and value.
pub(super) enum Field<'a> {
    Integer(u64, u64),
    Float(u64, f32),
    Bytes(u64, &'a [u8]),
}

/// The fields of a message, in order. Ends at the first that is damaged, with `None` in its place.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn of(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<Field<'a>> {
        let tag = self.varint()?;
        let number = tag >> 3;
        match tag & 7 {
            0 => Some(Field::Integer(number, self.varint()?)),
            // Eight bytes; none of the fields that are read has them.
            1 => self.take(8).map(|bytes| Field::Bytes(number, bytes)),
            2 => {
                let length = self.varint()?;
                Some(Field::Bytes(number, self.take(length)?))
            }
            5 => {
                let bytes = self.take(4)?.try_into().ok()?;
                Some(Field::Float(number, f32::from_le_bytes(bytes)))
            }
            _ => None,
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field)
    }
}
