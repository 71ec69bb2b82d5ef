@0xc1d7a6f25b0e9c34;
# What a home server does for its users: ALPN "capnp", one two-way QUIC stream, this bootstrap interface.
#
# Capabilities are the authorisation. The entrance can say who it is and nothing else; the session it opens belongs to
# the key that TLS proved. Lists are bounded by the server before it reads them; docs/home-server.md has the bounds.

struct Problem {
  # Empty code: there is none. Codes are the words of the command line's errors.
  code @0 :Text;
  message @1 :Text;
}

struct Outcome {
  # The answer for one envelope: verdict and reason as in a result frame (docs/protocol.md).
  verdict @0 :UInt8;
  reason @1 :UInt8;
}

struct Delivery {
  serial @0 :UInt64;
  # Grows with every envelope; fetch continues behind it.
  envelope @1 :Data;
  # As it leaves: age of this moment, one hop more.
}

struct PostId {
  # One post of a channel's window.
  serial @0 :UInt64;
  # As in Delivery: grows with every envelope that this server stores, whatever it is for.
  id @1 :Data;
}

struct Report {
  # What another domain's server answered to an envelope of this key: an event for the trace, and no more than that
  # server's word.
  id @0 :Data;
  domain @1 :Text;
  outcome @2 :Outcome;
}

struct Info {
  version @0 :Text;
  domain @1 :Text;
  epoch @2 :Data;
  # 16 random bytes; others than last time mean that the server forgot, and everything is offered again.
  perRecipient @3 :UInt32;
  batchMax @4 :UInt16;
  inFlightMax @5 :UInt16;
  registration @6 :Text;
  # How a key becomes a user: "open", "invite" or "list".
  admitted @7 :Bool;
  # Whether this key is one. A key that is not can register and ask for this, and nothing else.
  name @8 :Text;
  # This key's name here, empty for none.
}

interface Entrance {
  enter @0 (version :UInt16) -> (session :Session, info :Info, problem :Problem);
}

interface Session {
  enqueue @0 (envelope :Data, domain :Text) -> (outcome :Outcome, problem :Problem);
  batchEnqueue @1 (envelopes :List(Data), domain :Text) -> (outcomes :List(Outcome), problem :Problem);
  # The domain is the one whose server knows the recipients, as far as the sender knows; empty where it does not.
  fetch @2 (after :UInt64, limit :UInt16) -> (deliveries :List(Delivery), problem :Problem);
  acknowledge @3 (ids :List(Data)) -> (problem :Problem);
  # Envelope ids: these need not come again.
  subscribe @4 (receiver :Receiver) -> (problem :Problem);
  # Push what waits and what comes, until the connection ends; a second receiver replaces the first.
  publish @5 (record :Data, ageMs :UInt64) -> (problem :Problem);
  # This key's own record; it is kept if it is newer than the one that is here, and nothing is said of it if not.
  findRecord @6 (key :Data, domain :Text) -> (record :Data, ageMs :UInt64, problem :Problem);
  # Empty where there is none. With a domain that is not this server's, that domain's server is asked.
  register @7 (name :Text, invite :Text) -> (name :Text, domain :Text, problem :Problem);
  # Claim a name, bound to this key from then on; or become a user by an invite; or both. Answers with the name as it
  # is kept: Unicode NFKC, case folded.
  findName @8 (name :Text, domain :Text) -> (key :Data, problem :Problem);
  # The word of the domain's server (empty: this one) for whose name this is; code "not_found" where it is nobody's.
  info @9 () -> (info :Info, problem :Problem);
  follow @10 (channels :List(Data)) -> (upTo :UInt64, problem :Problem);
  # The ids of the channels that this user follows, all of them: it replaces what was said before, on any connection.
  # Posts with a serial above upTo go to the receiver, of channels that this connection did not follow before.
  listPosts @11 (channel :Data, after :UInt64, limit :UInt16) -> (posts :List(PostId), problem :Problem);
  # What is kept of a channel behind a serial, oldest first; empty: no more. Nothing for a channel not followed here.
  fetchPosts @12 (ids :List(Data)) -> (deliveries :List(Delivery), problem :Problem);
  # As many of these, in this order, as go into one answer; what is not kept any more is left out. Of a list that is
  # not empty an empty answer means that none is kept.
  lackingPosts @13 (ids :List(Data)) -> (ids :List(Data), later :List(Data), problem :Problem);
  # Which of these posts this server has never seen: only those are worth handing over. Those for later somebody else is
  # about to bring; ask again after a while, for he may fail.
}

interface Receiver {
  deliver @0 (deliveries :List(Delivery)) -> (ids :List(Data), problem :Problem);
  # Answers with the ids of those that need not come again; the others stay in the queue.
  report @1 (reports :List(Report)) -> (problem :Problem);
  # What became of this key's own envelopes farther on; an answer without a problem means that it need not come again.
  bring @2 (posts :List(Delivery)) -> (problem :Problem);
  # Posts of channels that this user follows, in the order of their serials within a channel. Any answer takes them off
  # the server's hands: what the client could not keep it lists and fetches later.
}
