//! Text to tokens.

use crate::parse::SyntaxError;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Mark(&'static str),
    End,
}

/// A token and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub token: Token,
    pub at: usize,
}

/// The longer ones first.
const MARKS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", ".?", "[?", "?.", "(", ")", "[", "]", "{", "}", ".", ",",
    ":", "?", "+", "-", "*", "/", "%", "<", ">", "!",
];

/// All tokens of a text, and an end.
pub(crate) fn tokens(text: &str) -> Result<Vec<At>, SyntaxError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut out = Vec::new();
    loop {
        lexer.skip();
        let at = lexer.at;
        let token = lexer.next()?;
        let ends = token == Token::End;
        out.push(At { token, at });
        if ends {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn bad(&self, why: impl Into<String>) -> SyntaxError {
        SyntaxError {
            at: self.at,
            message: format!("Syntax error: {}", why.into()),
        }
    }

    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<Token, SyntaxError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if let Some(token) = self.text_literal()? {
            return Ok(token);
        }
        if first.is_ascii_digit()
            || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let length = rest
                .bytes()
                .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
                .count();
            self.at += length;
            return Ok(Token::Ident(rest[..length].to_owned()));
        }
        if first == '`' {
            let end = rest[1..]
                .find('`')
                .ok_or_else(|| self.bad("unterminated identifier"))?;
            self.at += end + 2;
            return Ok(Token::Ident(rest[1..=end].to_owned()));
        }
        match MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            // Only `.?` and `[?` are optional access; `?.` is a choice before a number.
            Some(&"?.") => {
                self.at += 1;
                Ok(Token::Mark("?"))
            }
            Some(mark) => {
                self.at += mark.len();
                Ok(Token::Mark(mark))
            }
            None => Err(self.bad(format!("token recognition error at: '{first}'"))),
        }
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let rest = self.rest();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let length = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
            let digits = &hex[..length];
            self.at += 2 + length;
            return self.whole(u64::from_str_radix(digits, 16).ok());
        }
        let bytes = rest.as_bytes();
        let mut end = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        let mut double = false;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            double = true;
            end += 1 + bytes[end + 1..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let digits = bytes[end + 1 + sign..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
            if digits > 0 {
                double = true;
                end += 1 + sign + digits;
            }
        }
        let digits = &rest[..end];
        self.at += end;
        match double {
            true => digits
                .parse()
                .map(Token::Double)
                .map_err(|_| self.bad("invalid double literal")),
            false => self.whole(digits.parse().ok()),
        }
    }

    fn whole(&mut self, number: Option<u64>) -> Result<Token, SyntaxError> {
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            return number
                .map(Token::Uint)
                .ok_or_else(|| self.bad("invalid uint literal"));
        }
        match number.map(i64::try_from) {
            Some(Ok(number)) => Ok(Token::Int(number)),
            // The one number whose sign is needed to be read; the parser negates it.
            Some(Err(_)) if number == Some(1 << 63) => Ok(Token::Int(i64::MIN)),
            _ => Err(self.bad("invalid int literal")),
        }
    }

    /// A text or bytes, with the prefixes `r` and `b`.
    fn text_literal(&mut self) -> Result<Option<Token>, SyntaxError> {
        let rest = self.rest();
        let prefix = rest
            .bytes()
            .take(2)
            .take_while(|b| matches!(b, b'r' | b'R' | b'b' | b'B'))
            .count();
        let (flags, body) = rest.split_at(prefix);
        let Some(quote) = ["\"\"\"", "'''", "\"", "'"]
            .into_iter()
            .find(|quote| body.starts_with(quote))
        else {
            return Ok(None);
        };
        let raw = flags.contains(['r', 'R']);
        let is_bytes = flags.contains(['b', 'B']);
        self.at += prefix + quote.len();
        let mut out = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                break;
            }
            let Some(c) = rest.chars().next() else {
                return Err(self.bad("unterminated string"));
            };
            if quote.len() == 1 && matches!(c, '\n' | '\r') {
                return Err(self.bad("a string goes over the end of the line"));
            }
            self.at += c.len_utf8();
            match c {
                '\\' if !raw => self.escape(&mut out, is_bytes)?,
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(Some(match is_bytes {
            true => Token::Bytes(out),
            false => {
                Token::Text(String::from_utf8(out).map_err(|_| self.bad("a string is not UTF-8"))?)
            }
        }))
    }

    fn escape(&mut self, out: &mut Vec<u8>, is_bytes: bool) -> Result<(), SyntaxError> {
        let c = self
            .rest()
            .chars()
            .next()
            .ok_or_else(|| self.bad("unterminated escape"))?;
        self.at += c.len_utf8();
        let simple = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '?' | '"' | '\'' | '`' => c as u8,
            'x' | 'X' => return self.code(2, 16, out, is_bytes),
            'u' => return self.code(4, 16, out, false),
            'U' => return self.code(8, 16, out, false),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8, out, is_bytes);
            }
            _ => return Err(self.bad(format!("unknown escape \\{c}"))),
        };
        out.push(simple);
        Ok(())
    }

    fn code(
        &mut self,
        digits: usize,
        radix: u32,
        out: &mut Vec<u8>,
        byte: bool,
    ) -> Result<(), SyntaxError> {
        let text = self
            .rest()
            .get(..digits)
            .ok_or_else(|| self.bad("unterminated escape"))?;
        let code = u32::from_str_radix(text, radix).map_err(|_| self.bad("invalid escape"))?;
        self.at += digits;
        if byte {
            out.push(u8::try_from(code).map_err(|_| self.bad("invalid escape"))?);
            return Ok(());
        }
        let c = char::from_u32(code).ok_or_else(|| self.bad("invalid escape"))?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
}
