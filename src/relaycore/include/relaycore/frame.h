// A frame as it goes over the wire: WebSocket header, frame header, interleaved samples.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include "relaycore/live_objects.h"
#include "relaycore/packet.h"
#include "relaycore/ws_codec.h"

namespace relaycore {

// Belongs to one thread, so its count of references is a plain number. The samples begin at a
// cache line whatever the length of the headers, which are written backwards from there.
class alignas(64) Frame : Counted<"Frame"> {
 public:
  static Frame* create(size_t payload_bytes) {
    size_t size = sizeof(Frame) + kHeaderSpace + payload_bytes;
    return new (::operator new(size, std::align_val_t{alignof(Frame)})) Frame(payload_bytes);
  }

  void retain() noexcept { ++refs_; }
  void release() noexcept {
    if (--refs_ == 0) {
      this->~Frame();
      ::operator delete(this, std::align_val_t{alignof(Frame)});
    }
  }
  bool unique() const noexcept { return refs_ == 1; }
  bool fits(size_t payload_bytes) const noexcept { return payload_bytes <= capacity_; }

  uint8_t* payload() noexcept { return buffer() + kHeaderSpace; }

  // Makes a binary message of the payload; returns where its 32-byte header belongs.
  uint8_t* seal(size_t payload_bytes) noexcept {
    uint8_t header[10];
    size_t n = write_ws_header(header, WsOpcode::binary, kHeaderBytes + payload_bytes);
    begin_ = static_cast<uint32_t>(kHeaderSpace - kHeaderBytes - n);
    size_ = static_cast<uint32_t>(n + kHeaderBytes + payload_bytes);
    std::memcpy(buffer() + begin_, header, n);
    return buffer() + begin_ + n;
  }

  // Holds a copy of bytes that are on their way already.
  static Frame* copy_of(const uint8_t* data, size_t n) {
    Frame* frame = create(n);
    frame->begin_ = kHeaderSpace;
    frame->size_ = static_cast<uint32_t>(n);
    std::memcpy(frame->payload(), data, n);
    return frame;
  }

  const uint8_t* data() const noexcept {
    return reinterpret_cast<const uint8_t*>(this + 1) + begin_;
  }
  uint32_t size() const noexcept { return size_; }

  uint64_t number = 0;  // of the block it was made of

 private:
  static constexpr uint32_t kHeaderSpace = 64;  // ≥ 10 + kHeaderBytes

  explicit Frame(size_t capacity) noexcept : capacity_(static_cast<uint32_t>(capacity)) {}
  uint8_t* buffer() noexcept { return reinterpret_cast<uint8_t*>(this + 1); }

  uint32_t refs_ = 1;
  uint32_t begin_ = 0;
  uint32_t size_ = 0;
  uint32_t capacity_;
};

// Owner of one reference to a frame.
class FrameRef {
 public:
  FrameRef() noexcept = default;
  FrameRef(const FrameRef& other) noexcept : frame_(other.frame_) {
    if (frame_) frame_->retain();
  }
  FrameRef(FrameRef&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  FrameRef& operator=(FrameRef other) noexcept {
    std::swap(frame_, other.frame_);
    return *this;
  }
  ~FrameRef() {
    if (frame_) frame_->release();
  }
  static FrameRef adopt(Frame* frame) noexcept {
    FrameRef ref;
    ref.frame_ = frame;
    return ref;
  }
  Frame* get() const noexcept { return frame_; }
  Frame* operator->() const noexcept { return frame_; }
  explicit operator bool() const noexcept { return frame_ != nullptr; }

 private:
  Frame* frame_ = nullptr;
};

}  // namespace relaycore
