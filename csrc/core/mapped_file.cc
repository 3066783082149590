#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace exp3rt {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw std::runtime_error(path + ": " + what + ": " + std::strerror(errno));
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path, "cannot be opened");
  struct stat status{};
  const bool known = ::fstat(file, &status) == 0;
  size_ = known ? static_cast<std::size_t>(status.st_size) : 0;
  void* mapped = size_ > 0 ? ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0) : nullptr;
  ::close(file);
  if (!known) fail(path, "cannot be read");
  if (mapped == MAP_FAILED) fail(path, "cannot be mapped");
  data_ = static_cast<std::byte*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

std::shared_ptr<const std::byte> MappedFile::bytes(std::size_t offset, std::size_t num_bytes) const {
  if (offset > size_ || num_bytes > size_ - offset) {
    throw std::invalid_argument(path_ + ": " + std::to_string(num_bytes) + " bytes at " + std::to_string(offset) +
                                " are beyond its end at " + std::to_string(size_));
  }
  return {shared_from_this(), data_ + offset};
}

}  // namespace exp3rt
