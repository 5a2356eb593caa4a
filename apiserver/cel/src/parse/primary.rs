//! Literals, names and brackets, and what follows them: fields, calls, indexes.

use super::cursor::Parser;
use super::words::RESERVED;
use super::{DEPTH_MAX, Parsed, call};
use crate::ast::{Expr, Kind, Select};
use crate::lex::Token;
use crate::value::Value;

// === impl Parser ===

impl Parser {
    /// What follows a primary: fields, calls, indexes, literals of objects.
    pub(super) fn members(&mut self, mut expr: Expr) -> Parsed {
        for _ in 0..=DEPTH_MAX {
            let at = self.at();
            let mark = match self.peek() {
                Token::Mark(mark) => *mark,
                _ => return Ok(expr),
            };
            expr = match mark {
                "." | ".?" => {
                    self.next += 1;
                    let Token::Ident(field) = self.advance() else {
                        self.next -= 1;
                        return Err(self.unexpected(&self.peek().clone()));
                    };
                    if mark == "." && self.takes("(") {
                        let args = self.list(")")?;
                        self.method(at, expr, field, args)?
                    } else {
                        let operand = Box::new(expr);
                        let optional = mark == ".?";
                        Expr {
                            at,
                            kind: Kind::Select(Select {
                                operand,
                                field,
                                test: false,
                                optional,
                            }),
                        }
                    }
                }
                "[" | "[?" => {
                    self.next += 1;
                    let index = self.choice()?;
                    self.expect("]")?;
                    let name = if mark == "[" { "_[_]" } else { "_[?_]" };
                    call(at, None, name, vec![expr, index])
                }
                "{" => match qualified(&expr) {
                    Some(name) => {
                        self.next += 1;
                        let fields = self.fields()?;
                        Expr {
                            at,
                            kind: Kind::Struct(name, fields),
                        }
                    }
                    None => return Ok(expr),
                },
                _ => return Ok(expr),
            };
        }
        Err(self.bad(format!("expression nests deeper than {DEPTH_MAX}")))
    }

    pub(super) fn primary(&mut self) -> Parsed {
        let at = self.at();
        let literal = |value| {
            Ok(Expr {
                at,
                kind: Kind::Literal(value),
            })
        };
        match self.advance() {
            Token::Int(number) => literal(Value::Int(number)),
            Token::Uint(number) => literal(Value::Uint(number)),
            Token::Double(number) => literal(Value::Double(number)),
            Token::Text(text) => literal(Value::text(text)),
            Token::Bytes(bytes) => literal(Value::Bytes(bytes.into())),
            Token::Ident(name) => match name.as_str() {
                "true" => literal(Value::Bool(true)),
                "false" => literal(Value::Bool(false)),
                "null" => literal(Value::Null),
                _ if RESERVED.contains(&name.as_str()) => {
                    self.next -= 1;
                    Err(self.bad(format!("reserved identifier: {name}")))
                }
                _ if self.takes("(") => {
                    let args = self.list(")")?;
                    self.function(at, name, args)
                }
                _ => Ok(Expr {
                    at,
                    kind: Kind::Ident(name),
                }),
            },
            Token::Mark("(") => {
                let inner = self.choice()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Mark("[") => self.list_literal(at, false),
            Token::Mark("[?") => self.list_literal(at, true),
            Token::Mark("{") => self.map_literal(at),
            // A leading dot names a variable of the root, which all are.
            Token::Mark(".") => self.primary(),
            other => {
                if other != Token::End {
                    self.next -= 1;
                }
                Err(self.unexpected(&other))
            }
        }
    }
}

/// The dotted name that an expression spells, if it does.
fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select(select) if !select.test && !select.optional => {
            Some(format!("{}.{}", qualified(&select.operand)?, select.field))
        }
        _ => None,
    }
}
