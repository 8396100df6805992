// Drives libhrm_edge_plugin.so through TensorRT's interfaces, as TensorRT does, with a stand-in for the CUDA driver.
//   check_library PLUGIN FAKE_CUDA
#include <NvInferRuntime.h>

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

using namespace nvinfer1;

#define CHECK(condition)                                                                                               \
    do                                                                                                                 \
    {                                                                                                                  \
        if (!(condition))                                                                                              \
        {                                                                                                              \
            std::printf("line %d: %s\n", __LINE__, #condition);                                                        \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

struct Last
{
    unsigned grid[3], block[3], shared;
    void* stream;
    void* pointers[3];
    int32_t integers[7];
    void* out;
    void* scratch[2];
    char symbol[64];
};

struct Log : ILogger
{
    std::string last;
    void log(Severity, AsciiChar const* message) noexcept override
    {
        last = message;
    }
} gLog;

struct Finder : ILoggerFinder
{
    ILogger* findLogger() override
    {
        return &gLog;
    }
} gFinder;

struct Dimension : IDimensionExpr, apiv::VDimensionExpr
{
    explicit Dimension(int64_t value)
        : value(value)
    {
        IDimensionExpr::mImpl = this;
    }
    bool isConstant() const override
    {
        return true;
    }
    int64_t getConstantValue() const override
    {
        return value;
    }
    bool isSizeTensor() const override
    {
        return false;
    }
    int64_t value;
};

struct Builder : IExprBuilder, apiv::VExprBuilder
{
    Builder()
    {
        IExprBuilder::mImpl = this;
    }
    IDimensionExpr const* constant(int64_t value) override
    {
        return new Dimension(value);
    }
    IDimensionExpr const* operation(
        DimensionOperation op, IDimensionExpr const& first, IDimensionExpr const& second) override
    {
        auto value = [](IDimensionExpr const& x) { return static_cast<Dimension const&>(x).value; };
        return op == DimensionOperation::kFLOOR_DIV ? new Dimension(value(first) / value(second)) : nullptr;
    }
    IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&, IDimensionExpr const&) override
    {
        return nullptr;
    }
};

PluginTensorDesc tensor(std::vector<int64_t> const& dims, DataType type)
{
    PluginTensorDesc out{};
    out.dims.nbDims = static_cast<int32_t>(dims.size());
    std::copy(dims.begin(), dims.end(), out.dims.d);
    out.type = type;
    out.format = TensorFormat::kLINEAR;
    return out;
}

DynamicPluginTensorDesc dynamic(PluginTensorDesc const& desc)
{
    return {desc, desc.dims, desc.dims, desc.dims};
}

IPluginCreatorV3One* gCreator;
void* gFake;

template <typename T>
T& knob(char const* name)
{
    auto* found = static_cast<T*>(dlsym(gFake, name));
    CHECK(found != nullptr);
    return *found;
}

IPluginV3* create(std::vector<std::pair<char const*, int32_t>> const& values, TensorRTPhase phase)
{
    std::vector<PluginField> fields;
    for (auto const& value : values)
    {
        fields.emplace_back(value.first, &value.second, PluginFieldType::kINT32, 1);
    }
    PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
    return gCreator->createPlugin("layer", &collection, phase);
}

// Of four heads that see parts of a board.
IPluginV3* createOnBoard(std::vector<int32_t> const& grid)
{
    int32_t const heads = 4;
    PluginField const fields[] = {PluginField("heads", &heads, PluginFieldType::kINT32, 1),
        PluginField("grid", grid.data(), PluginFieldType::kINT32, static_cast<int32_t>(grid.size()))};
    PluginFieldCollection const collection{2, fields};
    return gCreator->createPlugin("layer", &collection, TensorRTPhase::kBUILD);
}

template <typename T>
T* capability(IPluginV3* plugin, PluginCapabilityType type)
{
    return static_cast<T*>(plugin->getCapabilityInterface(type));
}

void checkFields()
{
    PluginFieldCollection const* names = gCreator->getFieldNames();
    CHECK(names->nbFields == 2 && std::strcmp(names->fields[0].name, "heads") == 0);
    CHECK(std::strcmp(names->fields[1].name, "grid") == 0);
    IPluginV3* built = create({{"heads", 4}}, TensorRTPhase::kBUILD);
    IPluginV3* copy = built->clone();
    delete built;
    auto const* stored = capability<IPluginV3OneRuntime>(copy, PluginCapabilityType::kRUNTIME)->getFieldsToSerialize();
    CHECK(stored->nbFields == 3);
    CHECK(std::strcmp(stored->fields[0].name, "heads") == 0 && *static_cast<int32_t const*>(stored->fields[0].data) == 4);
    CHECK(std::strcmp(stored->fields[1].name, "abi") == 0);
    IPluginV3* read = gCreator->createPlugin("layer", stored, TensorRTPhase::kRUNTIME);
    CHECK(read != nullptr);
    auto const* again = capability<IPluginV3OneRuntime>(read, PluginCapabilityType::kRUNTIME)->getFieldsToSerialize();
    CHECK(*static_cast<int32_t const*>(again->fields[0].data) == 4);
    delete read;
    delete copy;
    CHECK(create({}, TensorRTPhase::kBUILD) == nullptr && gLog.last.find("`heads` must be") != std::string::npos);
    CHECK(createOnBoard({9, 9, 3}) == nullptr && gLog.last.find("`grid` must be four") != std::string::npos);
    CHECK(createOnBoard({9, 9, 2, 3}) == nullptr && gLog.last.find("boxes of 2x3 do not fill") != std::string::npos);
    CHECK(createOnBoard({9, -9, 3, 3}) == nullptr && createOnBoard({9, 9, 0, 3}) == nullptr);
    CHECK(create({{"heads", 0}}, TensorRTPhase::kBUILD) == nullptr);
    CHECK(create({{"heads", 4}}, TensorRTPhase::kRUNTIME) == nullptr && gLog.last.find("ABI 0") != std::string::npos);
    CHECK(create({{"heads", 4}, {"abi", 99}}, TensorRTPhase::kRUNTIME) == nullptr);
}

void checkBuild()
{
    IPluginV3* plugin = create({{"heads", 4}}, TensorRTPhase::kBUILD);
    auto* build = capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
    CHECK(build->getNbOutputs() == 1 && build->getWorkspaceSize(nullptr, 3, nullptr, 1) == 0);

    Builder builder;
    Dimension const batch(-1), length(82), packed(384);
    DimsExprs in[1]{}, out[1]{};
    in[0].nbDims = 3;
    in[0].d[0] = &batch;
    in[0].d[1] = &length;
    in[0].d[2] = &packed;
    CHECK(build->getOutputShapes(in, 1, nullptr, 0, out, 1, builder) == 0);
    CHECK(out[0].nbDims == 3 && out[0].d[0] == &batch && out[0].d[1] == &length);
    CHECK(static_cast<Dimension const*>(out[0].d[2])->value == 128);
    in[0].nbDims = 2;
    CHECK(build->getOutputShapes(in, 1, nullptr, 0, out, 1, builder) != 0);

    DataType const type = DataType::kHALF;
    DataType outType{};
    CHECK(build->getOutputDataTypes(&outType, 1, &type, 1) == 0 && outType == DataType::kHALF);

    for (DataType kind : {DataType::kHALF, DataType::kBF16, DataType::kFLOAT, DataType::kINT8})
    {
        DynamicPluginTensorDesc all[4] = {dynamic(tensor({1, 82, 384}, kind)), dynamic(tensor({82, 16}, DataType::kFLOAT)),
            dynamic(tensor({82, 16}, DataType::kFLOAT)), dynamic(tensor({1, 82, 128}, kind))};
        CHECK(build->supportsFormatCombination(0, all, 3, 1) == (kind != DataType::kINT8));
        CHECK(build->supportsFormatCombination(1, all, 3, 1) && build->supportsFormatCombination(3, all, 3, 1));
        all[1].desc.type = DataType::kHALF;
        CHECK(!build->supportsFormatCombination(1, all, 3, 1));
        all[0].desc.format = TensorFormat::kCHW4;
        CHECK(!build->supportsFormatCombination(0, all, 3, 1));
        all[3].desc.type = DataType::kINT32;
        CHECK(!build->supportsFormatCombination(3, all, 3, 1));
    }

    auto configure = [&](std::vector<std::vector<int64_t>> const& shapes) {
        std::vector<DynamicPluginTensorDesc> descs;
        for (auto const& shape : shapes)
        {
            descs.push_back(dynamic(tensor(shape, descs.empty() ? DataType::kHALF : DataType::kFLOAT)));
        }
        return build->configurePlugin(descs.data(), static_cast<int32_t>(descs.size()), nullptr, 1);
    };
    CHECK(configure({{1, 82, 384}}) == 0);
    CHECK(configure({{1, 82, 384}, {82, 16}, {82, 16}}) == 0);
    CHECK(configure({{1, 82, 385}}) != 0 && gLog.last.find("is not [B, S, 3*heads*Dh]") != std::string::npos);
    CHECK(configure({{1, 82, 192}}) != 0 && gLog.last.find("head size 16") != std::string::npos);
    CHECK(configure({{1, 1025, 384}}) != 0 && gLog.last.find("1025 positions") != std::string::npos);
    CHECK(configure({{1, 0, 384}}) != 0);
    CHECK(configure({{82, 384}}) != 0);
    CHECK(configure({{1, 82, 384}, {82, 16}}) != 0);
    CHECK(configure({{1, 82, 384}, {82, 16}, {81, 16}}) != 0 && gLog.last.find("[81, 16]") != std::string::npos);
    CHECK(configure({{1, 82, 384}, {82, 32}, {82, 16}}) != 0);
    delete plugin;
}

void checkLaunch()
{
    Last const& last = knob<Last>("fake_last");
    IPluginV3* plugin = create({{"heads", 4}}, TensorRTPhase::kBUILD);
    auto* first = capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
    IPluginV3* attached = first->attachToContext(nullptr);
    auto* runtime = capability<IPluginV3OneRuntime>(attached, PluginCapabilityType::kRUNTIME);
    char* const base = reinterpret_cast<char*>(0x10000);
    auto* const stream = reinterpret_cast<cudaStream_t>(0x7);
    auto run = [&](std::vector<PluginTensorDesc> const& in, int64_t offset) {
        std::vector<void const*> inputs;
        for (std::size_t i = 0; i < in.size(); ++i)
        {
            inputs.push_back(base + 0x1000 * i + offset);
        }
        void* outputs[] = {base + 0x9000};
        return runtime->enqueue(in.data(), nullptr, inputs.data(), outputs, nullptr, stream);
    };
    std::vector<PluginTensorDesc> const rope = {tensor({3, 82, 384}, DataType::kHALF), tensor({82, 16}, DataType::kFLOAT),
        tensor({82, 16}, DataType::kFLOAT)};
    CHECK(run(rope, 0) != 0 && gLog.last.find("before it was told") != std::string::npos);
    CHECK(runtime->onShapeChange(rope.data(), 3, nullptr, 1) == 0);
    CHECK(run(rope, 0) == 0);
    CHECK(last.grid[0] % 12 == 0 && last.grid[1] == 1 && last.block[0] % 32 == 0 && last.stream == stream);
    CHECK(last.pointers[0] == base && last.pointers[1] == base + 0x1000 && last.pointers[2] == base + 0x2000);
    CHECK(last.out == base + 0x9000 && last.scratch[0] == nullptr && last.scratch[1] == nullptr);
    CHECK(last.integers[0] == 82 && last.integers[1] == 4 && last.integers[2] == 16);
    CHECK(std::strcmp(last.symbol, "attention_kernel") == 0 && knob<int>("fake_ptx") == 0);
    CHECK(run(rope, 8) != 0 && gLog.last.find("aligned") != std::string::npos);
    int const modules = knob<int>("fake_modules");
    CHECK(runtime->onShapeChange(rope.data(), 3, nullptr, 1) == 0 && knob<int>("fake_modules") == modules);

    std::vector<PluginTensorDesc> const plain = {tensor({1, 901, 384}, DataType::kHALF)};
    CHECK(run(plain, 0) != 0);
    CHECK(runtime->onShapeChange(plain.data(), 1, nullptr, 1) == 0 && run(plain, 0) == 0);
    CHECK(last.pointers[1] == base && last.integers[0] == 901 && last.integers[2] == 0);
    std::vector<PluginTensorDesc> const empty = {tensor({0, 82, 384}, DataType::kHALF)};
    CHECK(runtime->onShapeChange(empty.data(), 1, nullptr, 1) == 0 && run(empty, 0) == 0);

    knob<unsigned long long>("fake_context") = 2; // nothing of context 1 is used in it
    knob<int>("fake_refuse_cubin") = 209;
    CHECK(runtime->onShapeChange(plain.data(), 1, nullptr, 1) == 0 && knob<int>("fake_ptx") == 1);
    knob<int>("fake_sm") = 86;
    CHECK(runtime->onShapeChange(rope.data(), 3, nullptr, 1) == 0 && knob<int>("fake_ptx") == 2);
    knob<int>("fake_sm") = 75;
    CHECK(runtime->onShapeChange(rope.data(), 3, nullptr, 1) != 0);
    CHECK(gLog.last.find("compute capability 8.0") != std::string::npos && run(rope, 0) != 0);
    knob<int>("fake_sm") = 87;
    std::vector<PluginTensorDesc> const wide = {tensor({1, 82, 384}, DataType::kFLOAT)}; // not compiled for this test
    CHECK(runtime->onShapeChange(wide.data(), 1, nullptr, 1) != 0);
    CHECK(gLog.last.find("no kernel for element type 2") != std::string::npos);
    knob<unsigned long long>("fake_context") = 0;
    CHECK(runtime->onShapeChange(plain.data(), 1, nullptr, 1) != 0 && gLog.last.find("no CUDA context") != std::string::npos);
    delete attached;
    delete plugin;
}

void checkBoard()
{
    Last const& last = knob<Last>("fake_last");
    knob<unsigned long long>("fake_context") = 3;
    knob<int>("fake_refuse_cubin") = 0;
    IPluginV3* plugin = createOnBoard({9, 9, 3, 3});
    CHECK(plugin != nullptr);
    auto* first = capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
    auto const* stored = first->getFieldsToSerialize();
    CHECK(std::strcmp(stored->fields[2].name, "grid") == 0 && stored->fields[2].length == 4);
    IPluginV3* read = gCreator->createPlugin("layer", stored, TensorRTPhase::kRUNTIME);
    IPluginV3* attached = capability<IPluginV3OneRuntime>(read, PluginCapabilityType::kRUNTIME)->attachToContext(nullptr);
    auto* runtime = capability<IPluginV3OneRuntime>(attached, PluginCapabilityType::kRUNTIME);
    std::vector<PluginTensorDesc> const board = {tensor({2, 81, 384}, DataType::kHALF)};
    CHECK(runtime->onShapeChange(board.data(), 1, nullptr, 1) == 0);
    void const* inputs[] = {reinterpret_cast<void*>(0x10000)};
    void* outputs[] = {reinterpret_cast<void*>(0x20000)};
    CHECK(runtime->enqueue(board.data(), nullptr, inputs, outputs, nullptr, nullptr) == 0);
    int32_t const wanted[] = {81, 4, 0, 9, 9, 3, 3};
    CHECK(std::equal(wanted, wanted + 7, last.integers) && last.out == outputs[0]);
    CHECK(last.scratch[0] == nullptr && last.scratch[1] == nullptr);
    std::vector<PluginTensorDesc> const more = {tensor({2, 82, 384}, DataType::kHALF)};
    CHECK(runtime->onShapeChange(more.data(), 1, nullptr, 1) != 0);
    CHECK(gLog.last.find("has 81 cells, there are 82 positions") != std::string::npos);
    delete attached;
    delete read;
    delete plugin;
}

int main(int, char** arguments)
{
    void* library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
    {
        std::printf("%s\n", dlerror());
        return 1;
    }
    gFake = dlopen(arguments[2], RTLD_NOW | RTLD_LOCAL);
    CHECK(gFake != nullptr);
    reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"))(&gFinder);
    int32_t count = 0;
    auto const getCreators
        = reinterpret_cast<IPluginCreatorInterface* const* (*) (int32_t&)>(dlsym(library, "getCreators"));
    gCreator = static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
    CHECK(count == 1 && std::strcmp(gCreator->getPluginName(), "FusedAttention") == 0);
    checkFields();
    checkBuild();
    checkLaunch();
    checkBoard();
    std::puts("ok");
    return 0;
}
