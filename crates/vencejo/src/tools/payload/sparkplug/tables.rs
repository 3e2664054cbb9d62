//! The messages of Sparkplug B, as `sparkplug_b.proto` of Eclipse Tahu has them.
//!
//! Owns: numbers, names and kinds of their fields. Does not own: how they are read (see `super`). Start reading at
//! [`PAYLOAD`]. Invariant: a number that stands here is that of the .proto.

use Holds::{Bool, Bytes, Double, Float, IsNull, Message, Number, Text, Type, Typed};
use Many::{List, One};

/// What a message of the protocol buffer becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    /// Its value alone.
    Value,
    /// The list of its first field.
    List,
    /// Its first field names what its second one holds.
    Pairs,
}

/// A message of the protocol buffer.
pub(super) struct Schema {
    pub(super) shape: Shape,
    pub(super) fields: &'static [Field],
}

/// Number, name in JSON, what it holds, and whether there may be many. Of those that are called `value` there is one.
pub(super) struct Field(
    pub(super) u64,
    pub(super) &'static str,
    pub(super) Holds,
    pub(super) Many,
);

#[derive(Clone, Copy)]
pub(super) enum Holds {
    Number,
    /// A number that the type of its message says the sign of.
    Typed,
    /// The number of a type.
    Type,
    Bool,
    /// Whether the value is none.
    IsNull,
    Float,
    Double,
    Text,
    Bytes,
    Message(&'static Schema),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Many {
    One,
    List,
}

pub(super) static PAYLOAD: Schema = Schema {
    shape: Shape::Object,
    fields: &[
        Field(1, "timestamp", Number, One),
        Field(3, "seq", Number, One),
        Field(4, "uuid", Text, One),
        Field(2, "metrics", Message(&METRIC), List),
        Field(5, "body", Bytes, One),
    ],
};

static METRIC: Schema = Schema {
    shape: Shape::Object,
    fields: &[
        Field(1, "name", Text, One),
        Field(2, "alias", Number, One),
        Field(3, "timestamp", Number, One),
        Field(4, "datatype", Type, One),
        Field(5, "is_historical", Bool, One),
        Field(6, "is_transient", Bool, One),
        Field(8, "metadata", Message(&METADATA), One),
        Field(9, "properties", Message(&PROPERTIES), One),
        Field(7, "value", IsNull, One),
        Field(10, "value", Typed, One),
        Field(11, "value", Typed, One),
        Field(12, "value", Float, One),
        Field(13, "value", Double, One),
        Field(14, "value", Bool, One),
        Field(15, "value", Text, One),
        Field(16, "value", Bytes, One),
        Field(17, "value", Message(&DATA_SET), One),
        Field(18, "value", Message(&TEMPLATE), One),
    ],
};

static METADATA: Schema = Schema {
    shape: Shape::Object,
    fields: &[
        Field(1, "is_multi_part", Bool, One),
        Field(2, "content_type", Text, One),
        Field(3, "size", Number, One),
        Field(4, "seq", Number, One),
        Field(5, "file_name", Text, One),
        Field(6, "file_type", Text, One),
        Field(7, "md5", Text, One),
        Field(8, "description", Text, One),
    ],
};

static PROPERTIES: Schema = Schema {
    shape: Shape::Pairs,
    fields: &[
        Field(1, "keys", Text, List),
        Field(2, "values", Message(&PROPERTY), List),
    ],
};

static PROPERTY: Schema = Schema {
    shape: Shape::Object,
    fields: &[
        Field(1, "type", Type, One),
        Field(2, "value", IsNull, One),
        Field(3, "value", Typed, One),
        Field(4, "value", Typed, One),
        Field(5, "value", Float, One),
        Field(6, "value", Double, One),
        Field(7, "value", Bool, One),
        Field(8, "value", Text, One),
        Field(9, "value", Message(&PROPERTIES), One),
        Field(10, "value", Message(&PROPERTIES_LIST), One),
    ],
};

static PROPERTIES_LIST: Schema = Schema {
    shape: Shape::List,
    fields: &[Field(1, "propertyset", Message(&PROPERTIES), List)],
};

static DATA_SET: Schema = Schema {
    shape: Shape::Object,
    fields: &[
        Field(2, "columns", Text, List),
        Field(3, "types", Type, List),
        Field(4, "rows", Message(&ROW), List),
    ],
};

static ROW: Schema = Schema {
    shape: Shape::List,
    fields: &[Field(1, "elements", Message(&ELEMENT), List)],
};

static ELEMENT: Schema = Schema {
    shape: Shape::Value,
    fields: &[
        Field(1, "value", Typed, One),
        Field(2, "value", Typed, One),
        Field(3, "value", Float, One),
        Field(4, "value", Double, One),
        Field(5, "value", Bool, One),
        Field(6, "value", Text, One),
    ],
};

static TEMPLATE: Schema = Schema {
    shape: Shape::Object,
    fields: &[
        Field(1, "version", Text, One),
        Field(4, "template_ref", Text, One),
        Field(5, "is_definition", Bool, One),
        Field(2, "metrics", Message(&METRIC), List),
        Field(3, "parameters", Message(&PARAMETER), List),
    ],
};

static PARAMETER: Schema = Schema {
    shape: Shape::Object,
    fields: &[
        Field(1, "name", Text, One),
        Field(2, "type", Type, One),
        Field(3, "value", Typed, One),
        Field(4, "value", Typed, One),
        Field(5, "value", Float, One),
        Field(6, "value", Double, One),
        Field(7, "value", Bool, One),
        Field(8, "value", Text, One),
    ],
};

/// Names of types, by their numbers.
pub(super) const TYPES: [&str; 35] = [
    "Unknown",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float",
    "Double",
    "Boolean",
    "String",
    "DateTime",
    "Text",
    "UUID",
    "DataSet",
    "Bytes",
    "File",
    "Template",
    "PropertySet",
    "PropertySetList",
    "Int8Array",
    "Int16Array",
    "Int32Array",
    "Int64Array",
    "UInt8Array",
    "UInt16Array",
    "UInt32Array",
    "UInt64Array",
    "FloatArray",
    "DoubleArray",
    "BooleanArray",
    "StringArray",
    "DateTimeArray",
];
