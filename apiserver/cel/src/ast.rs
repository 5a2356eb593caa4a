//! The tree of an expression. Macros stand in it as what they are, not as their expansion.

use crate::value::Value;

/// An expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Where it begins, in bytes.
    pub at: usize,
    /// What it is.
    pub kind: Kind,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A literal.
    Literal(Value),
    /// A variable.
    Ident(String),
    /// A field.
    Select(Select),
    /// A function or operator; operators are named as cel-go names them (`_+_`).
    Call(Call),
    /// A list; optional items are left out where they are empty.
    List(Vec<(Expr, bool)>),
    /// A map; optional entries are left out where they are empty.
    Map(Vec<(Expr, Expr, bool)>),
    /// An object of a named type.
    Struct(String, Vec<(String, Expr, bool)>),
    /// A macro that goes over a list or a map.
    Fold(Box<Fold>),
    /// `cel.bind(name, value, body)`
    Bind(String, Box<Expr>, Box<Expr>),
    /// `target.optMap(name, body)`; the flag says `optFlatMap`.
    OptMap(Box<Expr>, String, Box<Expr>, bool),
}

/// `operand.field`, `has(operand.field)`, `operand.?field`.
#[derive(Clone, Debug)]
pub struct Select {
    /// The object.
    pub operand: Box<Expr>,
    /// The field.
    pub field: String,
    /// Whether its presence is asked for.
    pub test: bool,
    /// Whether the result is optional.
    pub optional: bool,
}

/// `function(args)` or `target.function(args)`.
#[derive(Clone, Debug)]
pub struct Call {
    /// The receiver.
    pub target: Option<Box<Expr>>,
    /// The name.
    pub function: String,
    /// The arguments.
    pub args: Vec<Expr>,
}

/// Which macro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldKind {
    /// `all`
    All,
    /// `exists`
    Exists,
    /// `exists_one`, `existsOne`
    ExistsOne,
    /// `map`, `transformList`
    Map,
    /// `filter`
    Filter,
    /// `transformMap`
    TransformMap,
}

/// A macro that goes over a list or a map.
#[derive(Clone, Debug)]
pub struct Fold {
    /// Which.
    pub kind: FoldKind,
    /// What it goes over.
    pub range: Expr,
    /// The variable: an item, or a key of a map.
    pub var: String,
    /// The second one: the item beside its index, or the value beside its key.
    pub var2: Option<String>,
    /// Which items count.
    pub filter: Option<Expr>,
    /// What is computed of each.
    pub body: Expr,
}

impl Expr {
    /// Calls `see` for this expression and all its parts.
    pub fn walk(&self, see: &mut dyn FnMut(&Self)) {
        see(self);
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select(select) => select.operand.walk(see),
            Kind::Call(call) => {
                call.target.iter().for_each(|target| target.walk(see));
                call.args.iter().for_each(|arg| arg.walk(see));
            }
            Kind::List(items) => items.iter().for_each(|(item, _)| item.walk(see)),
            Kind::Map(entries) => entries.iter().for_each(|(key, value, _)| {
                key.walk(see);
                value.walk(see);
            }),
            Kind::Struct(_, fields) => fields.iter().for_each(|(_, value, _)| value.walk(see)),
            Kind::Fold(fold) => {
                fold.range.walk(see);
                fold.filter.iter().for_each(|filter| filter.walk(see));
                fold.body.walk(see);
            }
            Kind::Bind(_, value, body) | Kind::OptMap(value, _, body, _) => {
                value.walk(see);
                body.walk(see);
            }
        }
    }

    /// Whether a variable is named anywhere.
    pub fn names(&self, variable: &str) -> bool {
        let mut found = false;
        self.walk(&mut |expr| found |= matches!(&expr.kind, Kind::Ident(name) if name == variable));
        found
    }
}
