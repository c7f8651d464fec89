import kotlin.math.max

internal inline fun Int.toPaddedHex(): String = "\\u${this.toString(16).padStart(4, '0')}"

public inline class BitWidth(public val value: Int) {
  public inline fun max(other: BitWidth): BitWidth = if (this.value >= other.value) this else other
}

private inline fun arrayWidthInUBits(size: Int, crossinline elemWidthBlock: (Int) -> BitWidth): BitWidth {
  // Figure out smallest bit width we can store this vector with.
  var bitWidth = W_8.max(size.toULong().widthInUBits())
  // Check bit widths and types for all elements.
  for (i in 0 until size) {
    // since we know its inline types we can just assume elmentWidth to be the value width in bits.
    bitWidth = bitWidth.max(elemWidthBlock(i))
  }
  return bitWidth
}

// List of functions that needs to be implemented on all platforms.
internal expect inline fun ByteArray.getUByte(index: Int): UByte

internal fun FlexBufferType.isScalar(): Boolean = when (this) {
  T_INT, T_UINT, T_FLOAT, T_BOOL -> true
  else -> false
}

internal fun elemWidth(
  type: FlexBufferType,
  minBitWidth: BitWidth,
  iValue: Long,
  bufSize: Int,
  elemIndex: Int
): BitWidth {
  if (type.isInline()) return minBitWidth

  // We have an absolute offset, but want to store a relative offset
  // elem_index elements beyond the current buffer end. Since whether
  // the relative offset fits in a certain byte_width depends on
  // the size of the elements before it (and their alignment), we have
  // to test for each size in turn.
  // Original implementation checks for largest scalar
  // which is long unsigned int
  var byteWidth = 1
  while (byteWidth <= 32) {
    // Where are we going to write this offset?
    val offsetLoc: Int = bufSize + paddingBytes(bufSize, byteWidth) + elemIndex * byteWidth
    // Compute relative offset.
    val offset: Int = offsetLoc - iValue.toInt()
    // Does it fit?
    val bitWidth = offset.toULong().widthInUBits()
    if (1 shl bitWidth.value == byteWidth) return bitWidth
    byteWidth *= 2
  }
  return W_64
}

// Written for this test.
internal fun parseWidth(text: String): BitWidth? {
  try {
    return BitWidth(text.toInt())
  } catch (error: NumberFormatException) {
    return null
  }
}
