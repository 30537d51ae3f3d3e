//! Header compression as far as the tests need it (RFC 7541): written without any compression, so that
//! anything can be said, read with all of it but a dynamic table, which the client does not offer.

/// A header block of these fields, each a literal that is not indexed.
pub fn encode(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// An integer behind one bit (5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    let Some(mut rest) = value.checked_sub(127) else { return block.push(value as u8) };
    block.push(127);
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// The fields of a header block.
pub fn decode(block: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut reader = Reader { block };
    let mut fields = Vec::new();
    while let Some(&first) = reader.block.first() {
        if first & 0x80 != 0 {
            let index = reader.integer(7)?;
            fields.push(entry(index).map(|(name, value)| (name.to_owned(), value.to_owned()))?);
        } else if first & 0xe0 == 0x20 {
            reader.integer(5)?;
        } else {
            let index = reader.integer(if first & 0x40 != 0 { 6 } else { 4 })?;
            let name = if index == 0 { reader.text()? } else { entry(index)?.0.to_owned() };
            fields.push((name, reader.text()?));
        }
    }
    Ok(fields)
}

struct Reader<'a> {
    block: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let (&first, rest) = self.block.split_first().ok_or("the header block breaks off")?;
        self.block = rest;
        Ok(first)
    }

    fn integer(&mut self, bits: u32) -> Result<usize, String> {
        let most = (1 << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("an integer is too large".into())
    }

    fn text(&mut self) -> Result<String, String> {
        let is_huffman = self.block.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let text = self.block.get(..length).ok_or("a text breaks off")?;
        self.block = &self.block[length..];
        let bytes = if is_huffman { huffman(text)? } else { text.to_vec() };
        Ok(bytes.into_iter().map(char::from).collect())
    }
}

/// The code is canonical: ordered by length, then by byte (appendix B).
fn huffman(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut order: Vec<u8> = (0..=255).collect();
    order.sort_by_key(|byte| LENGTHS[usize::from(*byte)]);
    let mut bytes = Vec::new();
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    loop {
        let (mut code, mut first, mut length, mut index) = (0, 0, 0, 0);
        let byte = loop {
            let Some(bit) = bits.next() else {
                // What is left is the beginning of the longest code, all ones.
                return if code + 1 == 1 << length && length < 8 { Ok(bytes) } else { Err("bad padding".into()) };
            };
            (code, first, length) = (code << 1 | bit, first << 1, length + 1);
            let count = order[index..].iter().take_while(|byte| LENGTHS[usize::from(**byte)] == length).count();
            if code - first < count as u32 {
                break order[index + (code - first) as usize];
            }
            (first, index) = (first + count as u32, index + count);
            if length == 30 {
                return Err("no such code".into());
            }
        };
        bytes.push(byte);
    }
}

/// An entry of the static table, from 1.
fn entry(index: usize) -> Result<(&'static str, &'static str), String> {
    index.checked_sub(1).and_then(|index| STATIC.get(index)).copied().ok_or_else(|| format!("no entry {index}"))
}

/// Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// How many bits the code of each byte has.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

#[test]
fn texts_are_read_as_the_standard_writes_them() {
    // RFC 7541 C.4.1, C.6.1
    let written = [0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    assert_eq!(Reader { block: &written }.text().unwrap(), "www.example.com");
    let fields = decode(&[0x48, 0x82, 0x64, 0x02, 0x88, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b]).unwrap();
    let expected = [(":status", "302"), (":status", "200"), ("cache-control", "private")];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}
