// Word lists.
#include "fastkv-eval/synthetic/words.hpp"

#include <algorithm>

namespace fastkv::tools {

const std::vector<std::string>& things() {
  static const std::vector<std::string> list = {
      "lantern", "kettle",   "ladder",  "basket",  "compass",  "saddle",   "violin",    "anchor",  "barrel",  "blanket",
      "candle",  "carpet",   "chisel",  "clock",   "cradle",   "curtain",  "drawer",    "engine",  "feather", "fiddle",
      "hammer",  "helmet",   "hinge",   "kayak",   "kite",     "magnet",   "mirror",    "needle",  "oar",     "paddle",
      "parcel",  "pencil",   "piano",   "pillow",  "plough",   "puzzle",   "quilt",     "ribbon",  "rope",    "scarf",
      "shovel",  "sieve",    "spindle", "stamp",   "statue",   "stove",    "telescope", "thimble", "ticket",  "trumpet",
      "trunk",   "umbrella", "vase",    "wagon",   "whistle",  "wrench",   "apple",     "acorn",   "biscuit", "carrot",
      "cheese",  "chestnut", "honey",   "lemon",   "mushroom", "onion",    "pepper",    "pumpkin", "raisin",  "walnut",
      "badger",  "beetle",   "camel",   "falcon",  "heron",    "hornet",   "lizard",    "magpie",  "otter",   "owl",
      "pigeon",  "rabbit",   "salmon",  "sparrow", "spider",   "squirrel", "tortoise",  "turtle",  "walrus",  "weasel",
      "boulder", "cactus",   "clover",  "comet",   "crystal",  "fern",     "glacier",   "ivy",     "meteor",  "moss",
      "orchid",  "pebble",   "thistle", "tulip",   "violet",   "willow",   "banner",    "bucket",  "button",  "cello",
      "collar",  "crayon",   "dagger",  "easel",   "flute",    "goblet",   "harp",      "jacket",  "jigsaw",  "locket",
      "medal",   "mitten",   "napkin",  "pitcher", "pulley",   "satchel"};
  return list;
}

const std::vector<std::string>& places() {
  static const std::vector<std::string> list = {
      "harbour",  "orchard",   "market",     "library",  "mill",     "quarry",  "bakery",     "bridge", "cellar",
      "chapel",   "courtyard", "depot",      "dockyard", "farm",     "ferry",   "foundry",    "garden", "granary",
      "inn",      "island",    "lighthouse", "meadow",   "museum",   "palace",  "pasture",    "pier",   "prairie",
      "ravine",   "school",    "stable",     "station",  "theatre",  "tower",   "tunnel",     "valley", "village",
      "vineyard", "workshop",  "canal",      "cottage",  "fortress", "gallery", "greenhouse", "lagoon", "observatory"};
  return list;
}

const std::vector<std::string>& people() {
  static const std::vector<std::string> list = {
      "weaver",  "miller",   "baker",      "sailor",   "carpenter", "gardener",  "teacher", "painter", "tailor",
      "printer", "fisher",   "shepherd",   "doctor",   "lawyer",    "driver",    "singer",  "potter",  "mason",
      "clerk",   "porter",   "blacksmith", "captain",  "widow",     "student",   "nurse",   "cook",    "farmer",
      "hunter",  "jeweller", "librarian",  "merchant", "musician",  "neighbour", "pilot",   "surgeon", "warden"};
  return list;
}

const std::vector<std::string>& adjectives() {
  static const std::vector<std::string> list = {
      "amber",   "ancient", "bashful", "bitter",  "bold",    "brisk",  "broad",     "calm",    "careful",  "cheerful",
      "clever",  "copper",  "crimson", "crooked", "curious", "damp",   "dusty",     "eager",   "early",    "faded",
      "famous",  "fierce",  "foggy",   "fragile", "frosty",  "gentle", "gloomy",    "golden",  "graceful", "grey",
      "heavy",   "hollow",  "humble",  "idle",    "jolly",   "lazy",   "little",    "lonely",  "loud",     "lucky",
      "marble",  "mellow",  "modest",  "muddy",   "narrow",  "noisy",  "odd",       "painted", "pale",     "patient",
      "plain",   "polite",  "proud",   "purple",  "quiet",   "rapid",  "restless",  "rusty",   "scarlet",  "secret",
      "shallow", "shiny",   "silent",  "silver",  "slender", "smooth", "solemn",    "spotted", "steady",   "stubborn",
      "sturdy",  "sunny",   "tender",  "timid",   "tiny",    "velvet", "wandering", "weary",   "wild",     "wooden"};
  return list;
}

const std::vector<std::string>& verbs() {
  static const std::vector<std::string> list = {
      "admired", "borrowed", "bought",   "brought", "buried",  "carried", "carved",  "cleaned",   "counted", "covered",
      "drew",    "dropped",  "examined", "fetched", "found",   "guarded", "hid",     "inspected", "kept",    "lifted",
      "lost",    "measured", "mended",   "moved",   "noticed", "opened",  "painted", "polished",  "praised", "repaired",
      "sold",    "studied",  "threw",    "traded",  "watched", "weighed", "wrapped"};
  return list;
}

WordStream::WordStream(Random random) : random_(random) {
  for (const auto* list : {&things(), &places(), &people(), &adjectives(), &verbs()})
    words_.insert(words_.end(), list->begin(), list->end());
  std::sort(words_.begin(), words_.end());
  words_.erase(std::unique(words_.begin(), words_.end()), words_.end());
  random_.shuffle(words_);
}

std::string WordStream::next() {
  if (used_ < words_.size()) return words_[used_++];
  while (true) {
    std::string pair = random_.pick(words_) + "-" + random_.pick(words_);
    if (pairs_.insert(pair).second) return pair;
  }
}

std::string KeyStream::next() {
  while (true) {
    std::string key = random_.pick(adjectives()) + "-" + random_.pick(things());
    // half of all pairs: from there on most new ones would be known already
    if (keys_.size() > adjectives().size() * things().size() / 2) key += "-" + random_.pick(places());
    if (keys_.insert(key).second) return key;
  }
}

}  // namespace fastkv::tools
