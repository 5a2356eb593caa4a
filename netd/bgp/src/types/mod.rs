//! The vocabulary of BGP as values: what a message, a path attribute or a prefix *is*.
//!
//! Nothing here knows how a value stands on the wire, except [`NlriList`], which keeps prefixes
//! packed as they were received, because a thousand of them arrive in one message.

mod as_path;
mod attributes;
mod capability;
mod codes;
mod community;
mod family;
pub(crate) mod hex;
mod message;
mod next_hop;
mod nlri;
mod notification;
mod problem;
mod show;

pub use as_path::{AS_TRANS, AsPath, ParseAsPathError, Segment};
pub use attributes::{Aggregator, AttributeCode, Origin, PathAttributes, RawAttribute, flags};
pub use capability::{
    AddPath, Capability, ExtendedNextHop, GracefulRestart, LongLivedFamily, Restartable, Role,
};
pub use community::{Community, ExtCommunity, LargeCommunity, ParseCommunityError};
pub use family::Family;
pub use message::{
    Announcement, Message, MessageType, Open, RefreshSubtype, RouteRefresh, Update, VERSION,
};
pub use next_hop::NextHop;
pub use nlri::{Nlri, NlriError, NlriIter, NlriList, is_destination};
pub(crate) use notification::truncated;
pub use notification::{
    CeaseError, ErrorCode, FsmError, HeaderError, Notification, NotificationError, OpenError,
    RefreshError, UpdateError,
};
pub use problem::{Action, Problem};
