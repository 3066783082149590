#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace exp3rt {

// A file, memory-mapped read-only: pages are read when they are first used, and shared between processes.
class MappedFile : public std::enable_shared_from_this<MappedFile> {
 public:
  explicit MappedFile(const std::string& path);  // throws std::runtime_error naming the file
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::size_t size() const { return size_; }
  const std::byte* data() const { return data_; }
  // Keeps the mapping alive. Throws std::invalid_argument beyond the file's end.
  std::shared_ptr<const std::byte> bytes(std::size_t offset, std::size_t num_bytes) const;

 private:
  std::string path_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace exp3rt
