// hrm_edge::FusedAttention, a TensorRT IPluginV3 (TensorRT 10.0 to 11.x).
//
// Inputs: qkv [B, S, 3*H*Dh] and, optionally, cos and sin float32 [S, Dh/2]. Output: [B, S, H*Dh] in qkv's type.
// Fields: heads, and grid: rows and columns of a board and of its boxes, where the heads see, in turn, the row, the
// column, the box of a cell, and all cells (all 0, or absent: all heads see all positions). It has no workspace, keeps no state between calls but the kernel it loaded, and can be captured in a
// CUDA graph after one call.
#include "driver.h"
#include "kernels.h"

#include <NvInferRuntime.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#define HRM_EXPORT extern "C" __attribute__((visibility("default")))

namespace hrm_edge
{
namespace
{

using namespace nvinfer1;

constexpr char const* kNAME = "FusedAttention";
constexpr char const* kVERSION = "2";
constexpr char const* kNAMESPACE = "hrm_edge";
constexpr std::uintptr_t kALIGNMENT = 16;

ILoggerFinder* gLoggerFinder = nullptr;

void report(std::string const& message) noexcept
{
    std::string const text = std::string("hrm_edge::FusedAttention: ") + message;
    ILogger* logger = gLoggerFinder == nullptr ? nullptr : gLoggerFinder->findLogger();
    if (logger != nullptr)
    {
        logger->log(ILogger::Severity::kERROR, text.c_str());
    }
    else
    {
        std::fprintf(stderr, "%s\n", text.c_str());
    }
}

int32_t failed(std::string const& message) noexcept
{
    report(message);
    return 1;
}

bool elementOf(DataType type, int32_t& element)
{
    switch (type)
    {
    case DataType::kHALF: element = kFLOAT16; return true;
    case DataType::kBF16: element = kBFLOAT16; return true;
    case DataType::kFLOAT: element = kFLOAT32; return true;
    default: return false;
    }
}

std::string text(Dims const& dims)
{
    std::string out = "[";
    for (int32_t i = 0; i < dims.nbDims; ++i)
    {
        out += (i ? ", " : "") + std::to_string(dims.d[i]);
    }
    return out + "]";
}

bool unknownOr(int64_t dim, int64_t wanted)
{
    return dim == wanted || dim == -1;
}

// Empty if the plugin computes these shapes; a dimension of -1 is not known yet.
std::string checkShapes(Dims const& qkv, Dims const* cos, Dims const* sin, int32_t heads)
{
    if (qkv.nbDims != 3 || qkv.d[2] <= 0 || qkv.d[2] % (3 * heads) != 0)
    {
        return "qkv " + text(qkv) + " is not [B, S, 3*heads*Dh] with heads=" + std::to_string(heads);
    }
    int64_t const headDim = qkv.d[2] / (3 * heads);
    if (headDim != 32 && headDim != 64)
    {
        return "head size " + std::to_string(headDim) + ", the kernels have 32 and 64";
    }
    if (qkv.d[1] == 0 || qkv.d[1] > kMAX_LENGTH)
    {
        return std::to_string(qkv.d[1]) + " positions, the kernels take 1 to " + std::to_string(kMAX_LENGTH);
    }
    for (Dims const* table : {cos, sin})
    {
        if (table != nullptr
            && (table->nbDims != 2 || !unknownOr(table->d[0], qkv.d[1]) || !unknownOr(table->d[1], headDim / 2)))
        {
            return "a rope table is " + text(*table) + ", expected [" + std::to_string(qkv.d[1]) + ", "
                + std::to_string(headDim / 2) + "]";
        }
    }
    return "";
}

// Rows and columns of a board and of its boxes; all 0: none.
using Grid = std::array<int32_t, 4>;
constexpr Grid kNO_GRID{};

// Empty if the kernels have blocks for this board; `length` of -1 is not known yet.
std::string checkGrid(Grid const& grid, int32_t heads, int64_t length)
{
    if (grid == kNO_GRID)
    {
        return "";
    }
    std::string const board = std::to_string(grid[0]) + "x" + std::to_string(grid[1]);
    if (*std::min_element(grid.begin(), grid.end()) < 1 || grid[0] % grid[2] != 0 || grid[1] % grid[3] != 0)
    {
        return "boxes of " + std::to_string(grid[2]) + "x" + std::to_string(grid[3]) + " do not fill a board of " + board;
    }
    int64_t const cells = static_cast<int64_t>(grid[0]) * grid[1];
    if (!unknownOr(length, cells))
    {
        return "a board of " + board + " has " + std::to_string(cells) + " cells, there are " + std::to_string(length)
            + " positions";
    }
    return heads % 4 == 0 ? "" : std::to_string(heads) + " heads cannot see row, column, box and board in turn";
}

class FusedAttention : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime
{
public:
    FusedAttention(int32_t heads, Grid const& grid)
        : mHeads(heads)
        , mGrid(grid)
        , mAbi(abi())
    {
        mFields.emplace_back("heads", &mHeads, PluginFieldType::kINT32, 1);
        mFields.emplace_back("abi", &mAbi, PluginFieldType::kINT32, 1);
        mFields.emplace_back("grid", mGrid.data(), PluginFieldType::kINT32, 4);
        mCollection.nbFields = static_cast<int32_t>(mFields.size());
        mCollection.fields = mFields.data();
    }
    FusedAttention(FusedAttention const&) = delete;
    FusedAttention& operator=(FusedAttention const&) = delete;

    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override
    {
        switch (type)
        {
        case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
        case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
        case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    IPluginV3* clone() noexcept override
    {
        try
        {
            return new FusedAttention(mHeads, mGrid);
        }
        catch (std::exception const& error)
        {
            report(error.what());
            return nullptr;
        }
    }

    AsciiChar const* getPluginName() const noexcept override
    {
        return kNAME;
    }

    AsciiChar const* getPluginVersion() const noexcept override
    {
        return kVERSION;
    }

    AsciiChar const* getPluginNamespace() const noexcept override
    {
        return kNAMESPACE;
    }

    int32_t getNbOutputs() const noexcept override
    {
        return 1;
    }

    bool supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* tensors, int32_t inputs,
        int32_t /* outputs */) noexcept override
    {
        PluginTensorDesc const& tensor = tensors[position].desc;
        if (tensor.format != TensorFormat::kLINEAR)
        {
            return false;
        }
        int32_t element = 0;
        if (position == 0)
        {
            return elementOf(tensor.type, element);
        }
        return tensor.type == (position < inputs ? DataType::kFLOAT : tensors[0].desc.type);
    }

    int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t inputs, DynamicPluginTensorDesc const*,
        int32_t outputs) noexcept override
    {
        if ((inputs != 1 && inputs != 3) || outputs != 1)
        {
            return failed("takes qkv, or qkv, cos and sin, and has one output");
        }
        for (Dims const DynamicPluginTensorDesc::*which : {&DynamicPluginTensorDesc::min, &DynamicPluginTensorDesc::max})
        {
            bool const rope = inputs == 3;
            std::string wrong
                = checkShapes(in[0].*which, rope ? &(in[1].*which) : nullptr, rope ? &(in[2].*which) : nullptr, mHeads);
            wrong = wrong.empty() ? checkGrid(mGrid, mHeads, (in[0].*which).d[1]) : wrong;
            if (!wrong.empty())
            {
                return failed(wrong);
            }
        }
        return 0;
    }

    int32_t getOutputDataTypes(
        DataType* outputs, int32_t, DataType const* inputs, int32_t) const noexcept override
    {
        outputs[0] = inputs[0];
        return 0;
    }

    int32_t getOutputShapes(DimsExprs const* inputs, int32_t, DimsExprs const*, int32_t, DimsExprs* outputs, int32_t,
        IExprBuilder& builder) noexcept override
    {
        if (inputs[0].nbDims != 3)
        {
            return failed("qkv must have three dimensions");
        }
        outputs[0] = inputs[0];
        outputs[0].d[2] = builder.operation(DimensionOperation::kFLOOR_DIV, *inputs[0].d[2], *builder.constant(3));
        return 0;
    }

    int32_t onShapeChange(
        PluginTensorDesc const* in, int32_t inputs, PluginTensorDesc const*, int32_t) noexcept override
    {
        try
        {
            return prepare(in, inputs == 3) ? 0 : 1;
        }
        catch (std::exception const& error)
        {
            return failed(error.what());
        }
    }

    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const*, void const* const* inputs,
        void* const* outputs, void*, cudaStream_t stream) noexcept override
    {
        if (mLoaded.function == nullptr || !std::equal(mDims.d, mDims.d + 3, in[0].dims.d))
        {
            return failed("called with " + text(in[0].dims) + " before it was told of this shape");
        }
        int64_t const batch = in[0].dims.d[0];
        if (batch == 0)
        {
            return 0;
        }
        void const* const pointers[] = {inputs[0], mRope ? inputs[1] : inputs[0], mRope ? inputs[2] : inputs[0], outputs[0]};
        for (void const* pointer : pointers)
        {
            if (reinterpret_cast<std::uintptr_t>(pointer) % kALIGNMENT != 0)
            {
                return failed("a tensor is not aligned to 16 bytes");
            }
        }
        int32_t const headDim = static_cast<int32_t>(in[0].dims.d[2] / (3 * mHeads));
        Arguments const arguments{pointers[0], pointers[1], pointers[2], static_cast<int32_t>(in[0].dims.d[1]), mHeads,
            mRope ? headDim / 2 : 0, {mGrid[0], mGrid[1], mGrid[2], mGrid[3]}, outputs[0]};
        std::string error;
        return launch(mLoaded, batch * mHeads, arguments, stream, error) ? 0 : failed(error);
    }

    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override
    {
        return clone();
    }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override
    {
        return &mCollection;
    }

private:
    // Checks the shapes and loads the kernel: here, because a module must not be loaded while a stream is captured.
    bool prepare(PluginTensorDesc const* in, bool rope)
    {
        mLoaded = {};
        std::string error = checkShapes(in[0].dims, rope ? &in[1].dims : nullptr, rope ? &in[2].dims : nullptr, mHeads);
        error = error.empty() ? checkGrid(mGrid, mHeads, in[0].dims.d[1]) : error;
        int32_t element = 0;
        if (error.empty() && !elementOf(in[0].type, element))
        {
            error = "qkv must be float16, bfloat16 or float32";
        }
        if (error.empty() && (in[0].dims.d[0] < 0 || in[0].dims.d[1] < 0))
        {
            error = "qkv " + text(in[0].dims) + " is not known yet";
        }
        Case const wanted{element, static_cast<int32_t>(in[0].dims.d[2] / (3 * mHeads)), rope, mGrid != kNO_GRID,
            in[0].dims.d[1], in[0].dims.d[0] * mHeads};
        if (!error.empty() || !load(wanted, mLoaded, error))
        {
            report(error);
            return false;
        }
        mDims = in[0].dims;
        mRope = rope;
        return true;
    }

    int32_t mHeads;
    Grid mGrid;
    int32_t mAbi;
    std::vector<PluginField> mFields;
    PluginFieldCollection mCollection{};
    Loaded mLoaded{};
    Dims mDims{};
    bool mRope{false};
};

class Creator : public IPluginCreatorV3One
{
public:
    Creator()
    {
        mFields.emplace_back("heads", nullptr, PluginFieldType::kINT32, 1);
        mFields.emplace_back("grid", nullptr, PluginFieldType::kINT32, 4);
        mCollection.nbFields = static_cast<int32_t>(mFields.size());
        mCollection.fields = mFields.data();
    }

    IPluginV3* createPlugin(
        AsciiChar const* name, PluginFieldCollection const* fields, TensorRTPhase phase) noexcept override
    {
        try
        {
            int32_t heads = 0;
            Grid grid = kNO_GRID;
            std::string wrong;
            int32_t builtFor = phase == TensorRTPhase::kRUNTIME ? 0 : abi();
            for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i)
            {
                PluginField const& field = fields->fields[i];
                bool const integer = field.type == PluginFieldType::kINT32 && field.length == 1 && field.data != nullptr;
                int32_t const value = integer ? *static_cast<int32_t const*>(field.data) : 0;
                if (std::strcmp(field.name, "heads") == 0)
                {
                    heads = value;
                }
                else if (std::strcmp(field.name, "abi") == 0)
                {
                    builtFor = value;
                }
                else if (std::strcmp(field.name, "grid") == 0 && field.length == 4
                    && field.type == PluginFieldType::kINT32 && field.data != nullptr)
                {
                    std::copy_n(static_cast<int32_t const*>(field.data), 4, grid.begin());
                }
                else if (std::strcmp(field.name, "grid") == 0)
                {
                    wrong = "`grid` must be four int32";
                }
            }
            if (heads < 1)
            {
                report(std::string(name == nullptr ? "a node" : name) + ": `heads` must be one int32 above 0");
                return nullptr;
            }
            if (builtFor != abi())
            {
                report("the engine was built with ABI " + std::to_string(builtFor) + " of the plugin, this library has "
                    + std::to_string(abi()) + ": build the engine again, or load the library it was built with");
                return nullptr;
            }
            wrong = wrong.empty() ? checkGrid(grid, heads, -1) : wrong;
            if (!wrong.empty())
            {
                report(std::string(name == nullptr ? "a node" : name) + ": " + wrong);
                return nullptr;
            }
            return new FusedAttention(heads, grid);
        }
        catch (std::exception const& error)
        {
            report(error.what());
            return nullptr;
        }
    }

    PluginFieldCollection const* getFieldNames() noexcept override
    {
        return &mCollection;
    }

    AsciiChar const* getPluginName() const noexcept override
    {
        return kNAME;
    }

    AsciiChar const* getPluginVersion() const noexcept override
    {
        return kVERSION;
    }

    AsciiChar const* getPluginNamespace() const noexcept override
    {
        return kNAMESPACE;
    }

private:
    std::vector<PluginField> mFields;
    PluginFieldCollection mCollection{};
};

} // namespace
} // namespace hrm_edge

// What TensorRT looks for in a plugin library (loadLibrary, trtexec --dynamicPlugins, setPluginsToSerialize).
HRM_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count)
{
    static hrm_edge::Creator creator;
    static nvinfer1::IPluginCreatorInterface* const list[] = {&creator};
    count = 1;
    return list;
}

HRM_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder)
{
    hrm_edge::gLoggerFinder = finder;
}

// Read by hrm_edge/plugin/load.py before TensorRT sees the library: "ABI PACKAGE HEADERS SM,SM,...".
HRM_EXPORT char const* hrm_edge_plugin_info()
{
    static std::string const info = [] {
        std::string out = std::to_string(hrm_edge::abi()) + " " + hrm_edge::packageVersion() + " "
            + std::to_string(NV_TENSORRT_MAJOR) + "." + std::to_string(NV_TENSORRT_MINOR) + " ";
        int32_t last = 0;
        for (auto const& kernel : hrm_edge::kernels())
        {
            if (kernel.sm != last)
            {
                out += (last ? "," : "") + std::to_string(kernel.sm);
                last = kernel.sm;
            }
        }
        return out;
    }();
    return info.c_str();
}

// Index in kernels.json of the kernel for a case on an architecture, -1 for none; for diagnosis and tests.
HRM_EXPORT int32_t hrm_edge_plugin_find(
    int32_t sm, int32_t element, int32_t headDim, int32_t rope, int32_t grid, int64_t length, int64_t sequences)
{
    return hrm_edge::find(sm, {element, headDim, rope != 0, grid != 0, length, sequences});
}
