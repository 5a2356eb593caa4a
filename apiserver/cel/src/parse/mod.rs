//! Tokens to a tree: operators by precedence here, macros as what they are in [`macros`].

mod cursor;
mod literals;
mod macros;
mod primary;
mod words;

use crate::ast::{Call, Expr, Kind};
use crate::lex::{Token, tokens};
use crate::value::Value;
use cursor::Parser;

pub(crate) use words::FORMATS;

/// How deep an expression may nest: deeper ones could exhaust the stack.
const DEPTH_MAX: usize = 60;
/// Most bytes of an expression.
const LENGTH_MAX: usize = 64 * 1024;

/// An expression cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where, in bytes.
    pub at: usize,
    /// Why.
    pub message: String,
}

/// Reads an expression.
///
/// # Errors
/// [`SyntaxError`] says where it cannot be read.
pub fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.len() > LENGTH_MAX {
        return Err(SyntaxError {
            at: 0,
            message: format!("expression is longer than {LENGTH_MAX} bytes"),
        });
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    let expr = parser.choice()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.unexpected(&other.clone())),
    }
}

type Parsed = Result<Expr, SyntaxError>;

/// The binary operators by precedence, the loosest first.
const LEVELS: &[&[(&str, &str)]] = &[
    &[("||", "_||_")],
    &[("&&", "_&&_")],
    &[
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("<=", "_<=_"),
        (">=", "_>=_"),
        ("<", "_<_"),
        (">", "_>_"),
        ("in", "@in"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

// === impl Parser ===

impl Parser {
    /// `a ? b : c`
    fn choice(&mut self) -> Parsed {
        self.deeper(|this| {
            let at = this.at();
            let condition = this.binary(0)?;
            if !this.takes("?") {
                return Ok(condition);
            }
            let then = this.binary(0)?;
            this.expect(":")?;
            let otherwise = this.choice()?;
            Ok(call(at, None, "_?_:_", vec![condition, then, otherwise]))
        })
    }

    fn operator(&self, level: usize) -> Option<&'static str> {
        let found = match self.peek() {
            Token::Mark(mark) => *mark,
            Token::Ident(word) if word == "in" => "in",
            _ => return None,
        };
        let all = LEVELS[level].iter();
        all.clone()
            .find(|(mark, _)| *mark == found)
            .map(|(_, name)| *name)
    }

    fn binary(&mut self, level: usize) -> Parsed {
        if level == LEVELS.len() {
            return self.unary();
        }
        let at = self.at();
        let first = self.binary(level + 1)?;
        let mut terms = vec![first];
        let mut names = Vec::new();
        while let Some(name) = self.operator(level) {
            self.next += 1;
            names.push(name);
            terms.push(self.binary(level + 1)?);
        }
        if names.len() > DEPTH_MAX * 16 {
            return Err(self.bad("expression has too many operators"));
        }
        if level < 2 {
            return Ok(balanced(at, LEVELS[level][0].1, terms));
        }
        if names.len() > DEPTH_MAX {
            return Err(self.bad(format!("expression nests deeper than {DEPTH_MAX}")));
        }
        let mut terms = terms.into_iter();
        let mut left = terms
            .next()
            .ok_or_else(|| self.bad("an operand is missing"))?;
        for (name, right) in names.into_iter().zip(terms) {
            left = call(at, None, name, vec![left, right]);
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        if self.takes("!") {
            let operand = self.deeper(Self::unary)?;
            return Ok(call(at, None, "!_", vec![operand]));
        }
        if self.takes("-") {
            let negated = match self.peek() {
                Token::Int(number) => Some(Value::Int(number.wrapping_neg())),
                Token::Double(number) => Some(Value::Double(-number)),
                _ => None,
            };
            if let Some(value) = negated {
                self.next += 1;
                return self.members(Expr {
                    at,
                    kind: Kind::Literal(value),
                });
            }
            let operand = self.deeper(Self::unary)?;
            return Ok(call(at, None, "-_", vec![operand]));
        }
        if let Token::Int(i64::MIN) = self.peek() {
            return Err(self.bad("Syntax error: invalid int literal"));
        }
        let primary = self.primary()?;
        self.members(primary)
    }
}

fn call(at: usize, target: Option<Expr>, function: &str, args: Vec<Expr>) -> Expr {
    let call = Call {
        target: target.map(Box::new),
        function: function.to_owned(),
        args,
    };
    Expr {
        at,
        kind: Kind::Call(call),
    }
}

/// A chain of one operator as a tree of low depth.
fn balanced(at: usize, name: &str, mut terms: Vec<Expr>) -> Expr {
    while terms.len() > 1 {
        let mut next = Vec::with_capacity(terms.len().div_ceil(2));
        let mut pairs = terms.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => call(at, None, name, vec![left, right]),
                None => left,
            });
        }
        terms = next;
    }
    terms.pop().unwrap_or(Expr {
        at,
        kind: Kind::Literal(Value::Null),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_expressions_are_told() {
        for bad in [
            "",
            "1 +",
            "a b",
            "(1",
            "has(x)",
            "'abc",
            "[1, 2",
            "self.all(1, x)",
            "in",
            "9223372036854775808",
            "1 ? 2",
            "a..b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
        assert!(parse(&deep).is_err());
        assert!(parse("-9223372036854775808").is_ok());
        let long: Vec<&str> = vec!["a"; 400];
        assert!(parse(&long.join(" || ")).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-c.()\\[\\]{}?:'\"\\\\0-9+*&|<>=!, é-]{0,40}") {
            let _ = parse(&text);
        }
    }
}
