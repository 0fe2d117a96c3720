//! A node: a name, properties in order, children in order.
//!
//! The adding methods take and return the node by value, so a node is written as one expression.

use crate::value::{Cell, Phandle, Value};

/// A property of a [`Node`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub(crate) name: String,
    pub(crate) value: Value,
}

impl Property {
    /// The property's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The property's value.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// A node of a [`Tree`](crate::Tree).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub(crate) name: String,
    pub(crate) phandle: Option<Phandle>,
    pub(crate) properties: Vec<Property>,
    pub(crate) children: Vec<Node>,
}

impl Node {
    /// A node without properties; `name` is `node-name` or `node-name@unit-address`.
    pub fn new(name: impl Into<String>) -> Self {
        Node { name: name.into(), phandle: None, properties: Vec::new(), children: Vec::new() }
    }

    /// The root node, whose name is empty.
    pub fn root() -> Self {
        Node::new("")
    }

    /// Adds a property of any value.
    pub fn property(mut self, name: impl Into<String>, value: Value) -> Self {
        self.properties.push(Property { name: name.into(), value });
        self
    }

    /// Adds a property whose presence is its meaning.
    pub fn empty(self, name: impl Into<String>) -> Self {
        self.property(name, Value::Empty)
    }

    /// Adds a property of one cell.
    pub fn u32(self, name: impl Into<String>, n: u32) -> Self {
        self.cells(name, [n])
    }

    /// Adds a property of two cells that are one number.
    pub fn u64(self, name: impl Into<String>, n: u64) -> Self {
        self.property(name, Value::U64(n))
    }

    /// Adds a property of cells; [`Cell::Phandle`] refers to a node.
    pub fn cells<C: Into<Cell>>(self, name: impl Into<String>, cells: impl IntoIterator<Item = C>) -> Self {
        self.property(name, Value::Cells(cells.into_iter().map(Into::into).collect()))
    }

    /// Adds a property that refers to another node.
    pub fn reference(self, name: impl Into<String>, to: Phandle) -> Self {
        self.cells(name, [to])
    }

    /// Adds a property of one string.
    pub fn string(self, name: impl Into<String>, s: impl Into<String>) -> Self {
        self.property(name, Value::String(s.into()))
    }

    /// Adds a property of several strings.
    pub fn strings<S: Into<String>>(
        self,
        name: impl Into<String>,
        list: impl IntoIterator<Item = S>,
    ) -> Self {
        self.property(name, Value::StringList(list.into_iter().map(Into::into).collect()))
    }

    /// Adds a property of bytes.
    pub fn bytes(self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.property(name, Value::Bytes(bytes.into()))
    }

    /// Makes this the node that `phandle` names. The `phandle` property is written after the others.
    pub fn phandle(mut self, phandle: Phandle) -> Self {
        self.phandle = Some(phandle);
        self
    }

    /// Adds a child after those that are there.
    pub fn child(mut self, child: Node) -> Self {
        self.children.push(child);
        self
    }

    /// Adds children after those that are there.
    pub fn children(mut self, children: impl IntoIterator<Item = Node>) -> Self {
        self.children.extend(children);
        self
    }

    /// Applies `add` if `condition` holds: a property or child that only some trees have.
    pub fn when(self, condition: bool, add: impl FnOnce(Self) -> Self) -> Self {
        if condition { add(self) } else { self }
    }

    /// The name, with its unit address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The properties in order, without `phandle`.
    pub fn iter_properties(&self) -> impl Iterator<Item = &Property> {
        self.properties.iter()
    }

    /// The children in order.
    pub fn iter_children(&self) -> impl Iterator<Item = &Node> {
        self.children.iter()
    }

    /// The phandle that names this node.
    pub fn get_phandle(&self) -> Option<Phandle> {
        self.phandle
    }

    /// The value of the property `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.properties.iter().find(|p| p.name == name).map(|p| &p.value)
    }

    /// The child whose full name is `name`.
    pub fn get_child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|c| c.name == name)
    }
}
