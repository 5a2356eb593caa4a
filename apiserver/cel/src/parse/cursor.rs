//! The place in the tokens of an expression, and how deep it is.

use super::{DEPTH_MAX, SyntaxError};
use crate::lex::{At, Token};

/// Reads an expression from its tokens, the last of which is the end.
pub(super) struct Parser {
    pub(super) tokens: Vec<At>,
    pub(super) next: usize,
    pub(super) depth: usize,
}

// === impl Parser ===

impl Parser {
    pub(super) fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    pub(super) fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    pub(super) fn advance(&mut self) -> Token {
        let token = self.tokens[self.next].token.clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    pub(super) fn takes(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Token::Mark(m) if *m == mark);
        if found {
            self.next += 1;
        }
        found
    }

    pub(super) fn expect(&mut self, mark: &str) -> Result<(), SyntaxError> {
        match self.takes(mark) {
            true => Ok(()),
            false => Err(self.unexpected(&self.peek().clone())),
        }
    }

    pub(super) fn unexpected(&self, token: &Token) -> SyntaxError {
        let shown = match token {
            Token::Ident(name) => name.clone(),
            Token::Mark(mark) => (*mark).to_owned(),
            Token::End => "<EOF>".to_owned(),
            Token::Int(number) => number.to_string(),
            Token::Uint(number) => format!("{number}u"),
            Token::Double(number) => number.to_string(),
            Token::Text(text) => format!("{text:?}"),
            Token::Bytes(_) => "bytes".to_owned(),
        };
        self.bad(format!("Syntax error: mismatched input '{shown}'"))
    }

    pub(super) fn bad(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            at: self.at(),
            message: message.into(),
        }
    }

    pub(super) fn deeper<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.bad(format!("expression nests deeper than {DEPTH_MAX}")));
        }
        let outcome = work(self);
        self.depth -= 1;
        outcome
    }
}
