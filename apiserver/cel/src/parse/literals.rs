//! Lists, maps and objects, and the arguments of calls.

use super::cursor::Parser;
use super::{Parsed, SyntaxError};
use crate::ast::{Expr, Kind};
use crate::lex::Token;

// === impl Parser ===

impl Parser {
    pub(super) fn list(&mut self, end: &str) -> Result<Vec<Expr>, SyntaxError> {
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(self.choice()?);
            if !self.takes(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    pub(super) fn list_literal(&mut self, at: usize, first_optional: bool) -> Parsed {
        let mut items = Vec::new();
        let mut optional = first_optional;
        while !self.takes("]") {
            optional |= self.takes("?");
            items.push((self.choice()?, std::mem::take(&mut optional)));
            if !self.takes(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr {
            at,
            kind: Kind::List(items),
        })
    }

    pub(super) fn map_literal(&mut self, at: usize) -> Parsed {
        let mut entries = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let key = self.choice()?;
            self.expect(":")?;
            entries.push((key, self.choice()?, optional));
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr {
            at,
            kind: Kind::Map(entries),
        })
    }

    pub(super) fn fields(&mut self) -> Result<Vec<(String, Expr, bool)>, SyntaxError> {
        let mut fields = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let name = match self.advance() {
                Token::Ident(name) => name,
                other => return Err(self.unexpected(&other)),
            };
            self.expect(":")?;
            fields.push((name, self.choice()?, optional));
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(fields)
    }
}
