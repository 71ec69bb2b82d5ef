@0xd3b0f1a46c27e985;
# What servers do for each other: ALPN "quicprochat/federation/1", mutual TLS, one two-way QUIC stream, this bootstrap
# interface.
#
# Who calls is the one DNS name in the certificate that TLS has proved. Calls carry both domains, so that neither side
# can mistake for whom it acts: an origin that is not the caller's and a destination that is not this server's are
# refused. docs/federation.md has the rules and the bounds.

using Home = import "home.capnp";

struct Info {
  version @0 :Text;
  domain @1 :Text;
  epoch @2 :Data;
  # As in home.capnp: others than last time mean that the server forgot.
  batchMax @3 :UInt16;
  inFlightMax @4 :UInt16;
}

interface Entrance {
  enter @0 (version :UInt16) -> (peer :Peer, info :Info, problem :Home.Problem);
}

interface Peer {
  relay @0 (origin :Text, destination :Text, envelopes :List(Data)) -> (outcomes :List(Home.Outcome), problem :Home.Problem);
  # Envelopes for users of the destination, in one commit, with an answer for each that is durable before it leaves.
  findRecord @1 (destination :Text, key :Data) -> (record :Data, ageMs :UInt64, problem :Home.Problem);
  # The newest record of a user of the destination; empty where there is none.
  findName @2 (destination :Text, name :Text) -> (key :Data, problem :Home.Problem);
  # Whose name this is there, by that server's word; code "not_found" where it is nobody's.
  # A relay may also bring posts of channels that users of the destination follow, whoever wrote them.
  tellInterest @3 (origin :Text, destination :Text, added :List(Data), removed :List(Data), whole :Bool)
      -> (digest :Data, problem :Home.Problem);
  # Channels that users of the origin follow: what has changed, or the whole list, which is then what is added. The
  # answer is a digest of what the destination knows now (docs/federation.md). Code "policy" where no channels are shared.
  offerPosts @4 (origin :Text, destination :Text, ids :List(Data))
      -> (ids :List(Data), later :List(Data), problem :Home.Problem);
  # As lackingPosts in home.capnp.
}
