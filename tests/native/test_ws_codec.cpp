// The rules of RFC 6455, section 5, as a server must hold them.
#include "relaycore/ws_codec.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "ws_reference.h"

namespace {

using namespace relaycore;
using reference::client_frame;
using reference::Outcome;
using reference::Recorder;

constexpr WsLimits kLimits{1000, 3000};
constexpr unsigned kText = 0x81, kBinary = 0x82, kClose = 0x88, kPing = 0x89, kPong = 0x8A;
constexpr unsigned kTextPart = 0x01, kBinaryPart = 0x02, kMore = 0x00, kLast = 0x80;

// What comes of `wire` given in pieces that end at `cuts`.
Outcome run(const std::string& wire, std::vector<size_t> cuts = {}, const WsLimits& limits = kLimits) {
  WsParser parser;
  Recorder recorder;
  cuts.push_back(wire.size());
  size_t from = 0;
  for (const size_t to : cuts) {
    CHECK(reference::feed_piece(parser, recorder, std::string_view(wire).substr(from, to - from), limits));
    from = to;
  }
  return recorder.outcome;
}

Outcome run_bytewise(const std::string& wire, const WsLimits& limits = kLimits) {
  std::vector<size_t> cuts;
  for (size_t i = 1; i < wire.size(); ++i) cuts.push_back(i);
  return run(wire, cuts, limits);
}

// The outcome, which must be the same for the whole, for single bytes and for the slow decoder.
Outcome outcome(const std::string& wire, const WsLimits& limits = kLimits) {
  const Outcome whole = run(wire, {}, limits);
  CHECK_EQ(whole, reference::decode(wire, limits));
  CHECK_EQ(whole, run_bytewise(wire, limits));
  return whole;
}

Outcome says(std::vector<std::string> messages, unsigned error = 0) { return {messages, error}; }

std::string close_payload(unsigned code, const std::string& reason = "") {
  return std::string{static_cast<char>(code >> 8), static_cast<char>(code)} + reason;
}

// Declares `length` without bringing the payload; `width` bytes hold it: 0, 2 or 8.
std::string header_only(unsigned first, uint64_t length, unsigned width) {
  std::string out{static_cast<char>(first)};
  out += static_cast<char>(0x80 | (width == 0 ? length : width == 2 ? 126 : 127));
  for (unsigned i = width; i-- > 0;) out += static_cast<char>(length >> (8 * i));
  return out + "mask";
}

}  // namespace

TEST(messages_of_every_length_class_arrive) {
  const WsLimits wide{70000, 70000};
  for (const size_t n : {0u, 1u, 2u, 3u, 4u, 7u, 8u, 9u, 125u, 126u, 127u, 4096u, 65535u, 65536u, 65537u}) {
    std::string payload(n, ' ');
    for (size_t i = 0; i < n; ++i) payload[i] = static_cast<char>('a' + i % 23);
    CHECK_EQ(run(client_frame(kText, payload), {}, wide), says({"text " + payload}));
    CHECK_EQ(run(client_frame(kBinary, payload), {n / 2}, wide), says({"binary " + payload}));
  }
}

TEST(a_whole_message_is_handed_over_where_it_stands) {
  struct : Recorder {
    const uint8_t* at = nullptr;
    bool on_binary(const uint8_t* p, size_t) { at = p; return true; }
  } handler;
  WsParser parser;
  std::string wire = client_frame(kBinary, std::string(2000, 'x'));
  auto* data = reinterpret_cast<uint8_t*>(wire.data());
  const auto result = parser.feed(data, wire.size(), kLimits, handler);
  CHECK_EQ(result.consumed, wire.size());
  CHECK(handler.at == data + 8);
  CHECK_EQ(parser.allocated(), 0u);
  // Its header may have come before.
  wire = client_frame(kBinary, std::string(2000, 'x'));
  data = reinterpret_cast<uint8_t*>(wire.data());
  parser.feed(data, 8, kLimits, handler);
  parser.feed(data + 8, wire.size() - 8, kLimits, handler);
  CHECK(handler.at == data + 8);
}

TEST(fragments_make_one_message) {
  CHECK_EQ(outcome(client_frame(kTextPart, "one ") + client_frame(kMore, "two ") + client_frame(kLast, "three")),
           says({"text one two three"}));
  CHECK_EQ(outcome(client_frame(kBinaryPart, "") + client_frame(kMore, "") + client_frame(kLast, "")),
           says({"binary "}));
  CHECK_EQ(outcome(client_frame(kTextPart, "") + client_frame(kLast, "end") + client_frame(kText, "next")),
           says({"text end", "text next"}));
}

TEST(control_frames_come_between_fragments) {
  CHECK_EQ(outcome(client_frame(kTextPart, "a") + client_frame(kPing, "p") + client_frame(kMore, "b") +
                   client_frame(kPong, "") + client_frame(kPing, std::string(125, 'q')) +
                   client_frame(kLast, "c") + client_frame(kPong, "r")),
           says({"ping p", "pong ", "ping " + std::string(125, 'q'), "text abc", "pong r"}));
}

TEST(half_a_control_frame_and_half_a_message_do_not_mix) {
  const std::string wire = client_frame(kBinaryPart, "message ") + client_frame(kPing, "interrupts") +
                           client_frame(kLast, "goes on");
  for (size_t i = 0; i <= wire.size(); ++i)
    CHECK_EQ(run(wire, {i}), says({"ping interrupts", "binary message goes on"}));
}

TEST(any_two_cuts_leave_the_outcome_as_it_is) {
  const std::string streams[] = {
      client_frame(kTextPart, "h\xC3") + client_frame(kPing, "!") + client_frame(kLast, "\xA9") +
          client_frame(kBinary, std::string(130, 'b')) + client_frame(kClose, close_payload(1000, "bye")) +
          client_frame(kText, "nobody hears this"),
      client_frame(kText, "good") + client_frame(kTextPart, "\xF0\x9F") + client_frame(kLast, "\x8E\x41"),
      client_frame(kPong, "") + client_frame(kBinaryPart, "x") + client_frame(kText, "not allowed here"),
      client_frame(kBinary, "") + client_frame(0xC1, "reserved bit"),
  };
  for (const std::string& wire : streams) {
    const Outcome expected = reference::decode(wire, kLimits);
    for (size_t a = 0; a <= wire.size(); ++a)
      for (size_t b = a; b <= wire.size(); ++b) CHECK_EQ(run(wire, {a, b}), expected);
  }
}

TEST(a_client_frame_without_mask_is_refused) {
  CHECK_EQ(outcome(std::string("\x81\x02hi")), says({}, 1002));
  CHECK_EQ(outcome(std::string("\x89\x00", 2)), says({}, 1002));
}

TEST(reserved_bits_and_opcodes_are_refused_at_the_first_byte) {
  for (unsigned first = 0; first < 256; ++first) {
    const unsigned opcode = first & 0x0F;
    const bool fin = first & 0x80;
    const bool known = opcode == 1 || opcode == 2 || ((opcode == 8 || opcode == 9 || opcode == 10) && fin);
    const bool accepted = (first & 0x70) == 0 && known;
    CHECK_EQ(run(std::string{static_cast<char>(first)}), says({}, accepted ? 0 : 1002));
    const std::string inside = client_frame(kTextPart, "") + static_cast<char>(first);
    const bool follows = (first & 0x70) == 0 && (opcode == 0 || (known && opcode >= 8));
    CHECK_EQ(run(inside), says({}, follows ? 0 : 1002));
  }
}

TEST(a_control_frame_is_never_longer_than_125_bytes) {
  for (const unsigned first : {kClose, kPing, kPong})
    for (const unsigned code : {126u, 127u})
      CHECK_EQ(run(std::string{static_cast<char>(first), static_cast<char>(0x80 | code)}), says({}, 1002));
  CHECK_EQ(outcome(client_frame(kPing, std::string(125, 'x'))), says({"ping " + std::string(125, 'x')}));
}

TEST(lengths_are_in_their_shortest_form) {
  const WsLimits wide{SIZE_MAX, SIZE_MAX};
  for (const uint64_t length : {0u, 125u})
    CHECK_EQ(outcome(header_only(kBinary, length, 2), wide), says({}, 1002));
  for (const uint64_t length : {0u, 126u, 65535u})
    CHECK_EQ(outcome(header_only(kBinary, length, 8), wide), says({}, 1002));
  CHECK_EQ(outcome(header_only(kBinary, 126, 2), wide), says({}));
  CHECK_EQ(outcome(header_only(kBinary, 65536, 8), wide), says({}));
}

TEST(a_length_with_the_top_bit_is_refused_and_the_largest_below_it_is_too_big) {
  CHECK_EQ(outcome(header_only(kBinary, uint64_t{1} << 63, 8)), says({}, 1002));
  CHECK_EQ(outcome(header_only(kBinary, UINT64_MAX, 8)), says({}, 1002));
  CHECK_EQ(outcome(header_only(kBinary, UINT64_MAX >> 1, 8)), says({}, 1009));
}

TEST(limits_are_exact_and_separate_for_text_and_binary) {
  CHECK_EQ(outcome(client_frame(kText, std::string(1000, 't'))).error, 0u);
  CHECK_EQ(outcome(client_frame(kBinary, std::string(3000, 'b'))).error, 0u);
  CHECK_EQ(outcome(client_frame(kText, std::string(1001, 't'))), says({}, 1009));
  CHECK_EQ(outcome(client_frame(kBinary, std::string(3001, 'b'))), says({}, 1009));
  CHECK_EQ(outcome(client_frame(kText, ""), {0, 0}), says({"text "}));
  CHECK_EQ(outcome(client_frame(kText, "x"), {0, 0}), says({}, 1009));
}

TEST(a_message_too_big_is_refused_by_its_header_alone) {
  CHECK_EQ(run(header_only(kText, 1001, 2)), says({}, 1009));
  CHECK_EQ(run(header_only(kBinary, 1u << 30, 8)), says({}, 1009));
}

TEST(the_limit_holds_for_the_sum_of_the_fragments) {
  const std::string half(500, 't');
  CHECK_EQ(outcome(client_frame(kTextPart, half) + client_frame(kLast, half)).error, 0u);
  CHECK_EQ(outcome(client_frame(kTextPart, half) + client_frame(kMore, half) + header_only(kLast, 1, 0)),
           says({}, 1009));
  // One fragment may not bring the sum round to a small number.
  const WsLimits widest{SIZE_MAX, SIZE_MAX};
  CHECK_EQ(outcome(client_frame(kBinaryPart, "abc") + header_only(kLast, UINT64_MAX >> 1, 8), widest), says({}));
  CHECK_EQ(outcome(client_frame(kBinaryPart, "abc") + header_only(kLast, UINT64_MAX >> 1, 8),
                   {0, (UINT64_MAX >> 1) + 2}),
           says({}, 1009));
}

TEST(a_limit_lowered_within_a_message_counts_from_the_next_fragment) {
  WsParser parser;
  Recorder recorder;
  CHECK(reference::feed_piece(parser, recorder, client_frame(kBinaryPart, std::string(100, 'x')), {0, 100}));
  std::string next = client_frame(kLast, "");
  const auto result = parser.feed(reinterpret_cast<uint8_t*>(next.data()), next.size(), {0, 10}, recorder);
  CHECK_EQ(result.error_code, 1009u);
}

TEST(memory_follows_the_bytes_that_came_and_not_those_announced) {
  const WsLimits wide{0, size_t{1} << 40};
  WsParser parser;
  Recorder recorder;
  const auto give = [&](std::string bytes) {
    parser.feed(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size(), wide, recorder);
  };
  give(header_only(kBinary, uint64_t{1} << 40, 8));
  CHECK_EQ(parser.allocated(), 0u);
  size_t given = 0;
  for (size_t n = 1; n <= 100'000; n *= 3) {
    give(std::string(n, 'x'));
    given += n;
    CHECK_EQ(parser.buffered(), given);
    CHECK(parser.allocated() <= std::max<size_t>(2 * given, 256));
  }
}

TEST(memory_is_given_back_when_the_message_is_done) {
  WsParser parser;
  Recorder recorder;
  const auto give = [&](const std::string& bytes) {
    CHECK(reference::feed_piece(parser, recorder, bytes, kLimits));
  };
  give(client_frame(kTextPart, "held"));
  CHECK(parser.allocated() > 0);
  const std::string ping = client_frame(kPing, "half");
  give(ping.substr(0, 8));
  give(ping.substr(8));
  CHECK(parser.allocated() > 0);
  CHECK_EQ(parser.buffered(), 4u);
  give(client_frame(kLast, ""));
  CHECK_EQ(parser.allocated(), 0u);
  give(ping.substr(0, 8));
  CHECK_EQ(parser.buffered(), 2u);
  give(ping.substr(8));
  CHECK_EQ(parser.allocated(), 0u);
  give(client_frame(kTextPart, "held"));
  give("\xFF");
  CHECK_EQ(recorder.outcome.error, 1002u);
  CHECK_EQ(parser.allocated(), 0u);
}

TEST(a_thousand_tiny_fragments_make_a_buffer_that_doubles) {
  const WsLimits limits{0, 1000};
  WsParser parser;
  Recorder recorder;
  size_t moves = 0, last = 0;
  for (int i = 0; i < 1000; ++i) {
    CHECK(reference::feed_piece(parser, recorder, client_frame(i == 0 ? kBinaryPart : kMore, "x"), limits));
    moves += parser.allocated() != last;
    last = parser.allocated();
  }
  CHECK(moves <= 4);
  CHECK_EQ(parser.allocated(), 1000u);
  CHECK(reference::feed_piece(parser, recorder, client_frame(kLast, ""), limits));
  CHECK_EQ(recorder.outcome, says({"binary " + std::string(1000, 'x')}));
}

TEST(binary_that_has_no_place_is_refused_at_its_first_header) {
  const WsLimits none{1000, 3000, 4400};
  const std::string before = client_frame(kText, "yes") + client_frame(kPing, "?");
  const Outcome refused = says({"text yes", "ping ?"}, 4400);
  CHECK_EQ(outcome(before + client_frame(kBinary, "no"), none), refused);
  CHECK_EQ(outcome(before + client_frame(kBinaryPart, ""), none), refused);
  CHECK_EQ(run(before + header_only(kBinary, 5000, 2), {}, none), refused);
  CHECK_EQ(outcome(client_frame(kTextPart, "a") + client_frame(kLast, "b"), none), says({"text ab"}));
  // A header that is wrong is so in any case, and one that is not whole is nothing yet.
  CHECK_EQ(outcome(client_frame(kBinary | 0x40, "no"), none), says({}, 1002));
  CHECK_EQ(outcome(client_frame(kBinary, "").substr(0, 5), none), says({}));
}

TEST(text_is_utf8_across_fragments_and_binary_need_not_be) {
  const std::string text = "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5 \xF0\x9F\x8E\xA7";
  for (size_t i = 0; i <= text.size(); ++i) {
    const std::string wire = client_frame(kTextPart, text.substr(0, i)) + client_frame(kPing, "\xFF") +
                             client_frame(kLast, text.substr(i));
    CHECK_EQ(outcome(wire), says({"ping \xFF", "text " + text}));
  }
  CHECK_EQ(outcome(client_frame(kBinary, "\xFF\xFE\xC0")), says({"binary \xFF\xFE\xC0"}));
}

TEST(bad_utf8_fails_as_soon_as_it_is_there) {
  // In the first bytes of a long frame, in a fragment with more to come, and at the end.
  CHECK_EQ(run(header_only(kText, 900, 2) + std::string{'\xFF' ^ 'm'}), says({}, 1007));
  CHECK_EQ(outcome(client_frame(kTextPart, "\xED\xA0\x80")), says({}, 1007));
  CHECK_EQ(outcome(client_frame(kTextPart, "\xF4\x90")), says({}, 1007));
  CHECK_EQ(outcome(client_frame(kText, "half \xE2\x82")), says({}, 1007));
  CHECK_EQ(outcome(client_frame(kTextPart, "half \xE2") + client_frame(kLast, "")), says({}, 1007));
}

TEST(a_new_text_starts_with_a_clean_check) {
  const std::string wire = client_frame(kText, "\xC3\xA9") + client_frame(kBinary, "\xE2") + client_frame(kText, "ok");
  CHECK_EQ(outcome(wire), says({"text \xC3\xA9", "binary \xE2", "text ok"}));
}

TEST(close_codes_are_those_the_standard_allows) {
  CHECK_EQ(outcome(client_frame(kClose, "")), says({"close 1005 "}));
  CHECK_EQ(outcome(client_frame(kClose, "\x03")), says({}, 1002));
  for (unsigned code = 0; code < 65536; ++code) {
    const bool defined = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
    const bool free = code >= 3000 && code <= 4999;
    CHECK_EQ(is_valid_close_code(code), defined || free);
    const Outcome got = run(client_frame(kClose, close_payload(code, "r")));
    if (got != (defined || free ? says({reference::close_line(code, "r")}) : says({}, 1002))) CHECK_EQ(code, 0u);
  }
}

TEST(close_reasons_are_utf8) {
  CHECK_EQ(outcome(client_frame(kClose, close_payload(1000, "\xC3\xA9"))), says({"close 1000 \xC3\xA9"}));
  CHECK_EQ(outcome(client_frame(kClose, close_payload(1000, "\xC3"))), says({}, 1007));
  CHECK_EQ(outcome(client_frame(kClose, close_payload(1000, std::string(123, 'r')))).error, 0u);
}

TEST(nothing_is_heard_after_a_close_frame_or_an_error) {
  CHECK_EQ(outcome(client_frame(kTextPart, "never ends") + client_frame(kClose, close_payload(4000)) +
                   client_frame(kLast, "!") + "\xFF\xFF"),
           says({"close 4000 "}));
  CHECK_EQ(outcome(client_frame(kText, "\xFF") + client_frame(kText, "late")), says({}, 1007));
}

TEST(a_handler_that_says_stop_gets_the_rest_later) {
  std::string wire = client_frame(kText, "one") + client_frame(kPing, "two") + client_frame(kBinary, "three") +
                     client_frame(kTextPart, "fo") + client_frame(kPong, "five") + client_frame(kLast, "ur");
  auto* data = reinterpret_cast<uint8_t*>(wire.data());
  WsParser parser;
  Recorder recorder;
  recorder.go_on = [] { return false; };
  std::vector<size_t> ends;
  size_t at = 0;
  while (at < wire.size()) {
    const auto result = parser.feed(data + at, wire.size() - at, kLimits, recorder);
    CHECK(result.paused);
    CHECK_EQ(recorder.outcome.messages.size(), ends.size() + 1);
    at += result.consumed;
    ends.push_back(at);
    if (result.consumed == 0) break;
  }
  CHECK_EQ(recorder.outcome, says({"text one", "ping two", "binary three", "pong five", "text four"}));
  CHECK((ends == std::vector<size_t>{9, 18, 29, 47, 55}));
}

TEST(frames_of_the_server_are_unmasked_final_and_in_shortest_form) {
  struct Case { size_t length; std::string header; };
  const Case cases[] = {
      {0, std::string("\x82\x00", 2)},           {125, "\x82\x7D"},
      {126, std::string("\x82\x7E\x00\x7E", 4)}, {65535, "\x82\x7E\xFF\xFF"},
      {65536, std::string("\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00", 10)},
      {0x123456789A, std::string("\x82\x7F\x00\x00\x00\x12\x34\x56\x78\x9A", 10)},
  };
  for (const Case& c : cases) {
    uint8_t out[kWsMaxServerHeader];
    const size_t n = write_ws_header(out, WsOpcode::binary, c.length);
    CHECK_EQ(std::string(reinterpret_cast<char*>(out), n), c.header);
  }
  uint8_t out[kWsMaxServerHeader];
  write_ws_header(out, WsOpcode::text, 1);
  CHECK_EQ(unsigned{out[0]}, kText);
}

TEST(close_frames_are_written_with_a_reason_cut_between_characters) {
  const auto written = [](uint16_t code, std::string_view reason) {
    uint8_t out[kWsMaxClose];
    return std::string(reinterpret_cast<char*>(out), write_ws_close(out, code, reason));
  };
  CHECK_EQ(written(1005, "dropped"), std::string("\x88\x00", 2));
  CHECK_EQ(written(1001, ""), "\x88\x02\x03\xE9");
  CHECK_EQ(written(4410, "room closed"), "\x88\x0D\x11\x3Aroom closed");
  const std::vector<char> unterminated{'b', 'y', 'e'};  // one step beyond is the sanitizer's
  CHECK_EQ(written(1000, {unterminated.data(), 3}), "\x88\x05\x03\xE8""bye");
  const std::string most(123, 'r');
  CHECK_EQ(written(1000, most), "\x88\x7D\x03\xE8" + most);
  CHECK_EQ(written(1000, most + "r"), "\x88\x7D\x03\xE8" + most);
  for (size_t lead = 119; lead <= 123; ++lead) {
    const std::string frame = written(1000, std::string(lead, 'r') + "\xF0\x9F\x8E\xA7\xF0\x9F\x8E\xA7");
    CHECK_EQ(frame.size(), 4 + (lead == 119 ? 123 : lead));
    CHECK(reference::is_utf8(std::string_view(frame).substr(4)));
  }
}

TEST(unmasking_is_the_same_for_every_length_alignment_and_cut) {
  std::string plain(80, 0);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<char>(i * 37);
  const uint8_t key[4] = {0x12, 0x80, 0xFF, 0x01};
  for (size_t offset = 0; offset < 8; ++offset) {
    for (size_t n = 0; n + offset <= plain.size(); ++n) {
      for (size_t cut : {size_t{0}, n / 3, n / 2, n}) {
        std::string got = plain;
        auto* p = reinterpret_cast<uint8_t*>(got.data()) + offset;
        uint8_t turning[4] = {key[0], key[1], key[2], key[3]};
        ws_unmask(p, cut, turning);
        ws_unmask(p + cut, n - cut, turning);
        std::string expected = plain;
        for (size_t i = 0; i < n; ++i) expected[offset + i] = static_cast<char>(expected[offset + i] ^ key[i % 4]);
        CHECK(got == expected);
      }
    }
  }
}

// Streams of mostly sensible frames with a few faults, cut at random, against the slow decoder.
TEST(random_streams_come_to_what_the_slow_decoder_says) {
  std::mt19937 random(20260101);
  const auto below = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
  const std::string scraps[] = {"",     "a",        "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x8E\xA7",
                                "\xE2", "\x82\xAC", "plain text of some length, longer than a word", "\x03\xE8"};
  for (int round = 0; round < 20'000; ++round) {
    std::string wire;
    bool open = false;
    for (unsigned frames = 1 + below(6); frames-- > 0;) {
      std::string payload;
      for (unsigned n = below(5); n-- > 0;) payload += scraps[below(std::size(scraps))];
      unsigned first = 0;
      if (below(3) == 0) {
        first = below(8) == 0 ? kClose : kPing + below(2);
        if (first == kClose && below(4) != 0) payload = close_payload(3000 + below(2000), payload);
      } else {
        const bool fin = below(2);
        first = (fin ? 0x80 : 0) | (open ? 0 : 1 + below(2));
        open = !fin;
      }
      if (below(40) == 0) first ^= 1u << below(8);
      std::string frame = client_frame(first, payload, static_cast<uint32_t>(random()));
      if (below(40) == 0) frame[below(static_cast<unsigned>(frame.size()))] ^= static_cast<char>(1u << below(8));
      wire += frame;
    }
    if (below(4) == 0) wire.resize(below(static_cast<unsigned>(wire.size()) + 1));

    const WsLimits limits{below(2) ? 1000u : below(200), below(2) ? 3000u : below(200),
                          static_cast<uint16_t>(below(4) ? 0 : 4400)};
    WsParser parser;
    Recorder recorder;
    recorder.go_on = [&] { return below(4) != 0; };
    std::string_view rest = wire;
    while (!rest.empty()) {
      const size_t n = std::min<size_t>(rest.size(), below(4) == 0 ? below(100) : below(8));
      CHECK(reference::feed_piece(parser, recorder, rest.substr(0, n), limits));
      rest.remove_prefix(n);
    }
    CHECK_EQ(recorder.outcome, reference::decode(wire, limits));
  }
}
